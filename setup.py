from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="entropy-mask-plugin",
    version="0.1.0",
    description="Entropy-aware masking for masked language modelling, as a fairseq plug-in",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["entropy_mask_plugin", "entropy_mask_plugin.*"]),
    package_data={"entropy_mask_plugin.studies": ["page.html"]},
    python_requires=">=3.11",
    install_requires=[
        "torch>=2.6",  # the first whose torch.load refuses pickles that run code unless told otherwise
        "fairseq-fixed==0.12.3.1",  # the fairseq that runs on Python 3.11; see scripts/install.sh for the order
        "numpy>=1.26",
        "sentencepiece>=0.2",
        "tokenizers>=0.20",  # WordPiece, and SentencePiece for transformers
        "safetensors>=0.4",
        "protobuf>=4.21",  # sentencepiece's own description of its models needs it
        "huggingface_hub>=0.24",
        "pyyaml>=6",
        "datasets>=3.0",
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "scipy>=1.15",
        "scikit-learn>=1.4",
        "tabulate>=0.9",
        "tqdm>=4.60",
    ],
    extras_require={"test": ["pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "transformers>=4.48"]},
)
