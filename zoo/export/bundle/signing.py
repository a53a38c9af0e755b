"""A bundle signed with a key, and checked, by the optional package model-signing; offline."""

from __future__ import annotations

import importlib
from pathlib import Path
from shlex import quote
from typing import Any

from zoo.errors import ModelFileError, UsageError, ZooError, first_line
from zoo.export.bundle.manifest import INSTALLED, SIGNATURE

MAKE_KEY = "openssl ecparam -name prime256v1 -genkey -noout"


def check_key(key: Path) -> None:
    """Refuse what cannot sign before the work is done: no key, another key, a missing package."""
    if not key.is_file():
        raise UsageError(f"There is no key '{key}'. Type: {MAKE_KEY} -out {quote(str(key))}")
    _signer(key)


def sign(folder: Path, key: Path) -> None:
    """Write `model.sig`, over every file of the folder; raises `ZooError`."""
    _signer(key).set_hashing_config(_hashing()).sign(folder, folder / SIGNATURE)


def check(folder: Path, key: Path) -> None:
    """Hold a bundle against its signature; raises `ModelFileError` where it is not the key's.

    What `npm install` brings is left out, as it was not there to be signed.
    """
    if not key.is_file():
        raise UsageError(f"There is no key '{key}'.")
    signature = folder / SIGNATURE
    if not signature.is_file():
        raise ModelFileError(f"'{folder}' is not signed: there is no {SIGNATURE} in it.")
    verifying = _package("verifying")
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except Exception as error:
        raise ZooError(
            f"'{key}' is no public key on an elliptic curve, in PEM: {_sentence(error)}."
        ) from None
    try:
        verifier.set_hashing_config(_hashing(*INSTALLED)).verify(folder, signature)
    except Exception as error:  # a damaged signature fails in whatever reads it
        raise ModelFileError(
            f"{SIGNATURE} does not sign this folder with that key: {_sentence(error)}."
        ) from None


def _signer(key: Path) -> Any:
    config = _package("signing").Config().use_elliptic_key_signer
    try:
        return config(private_key=key)
    except Exception as error:
        # The package asks a key of another kind for its curve, and stumbles.
        other = isinstance(error, AttributeError)
        reason = "it is a key of another kind" if other else _sentence(error)
        raise ZooError(
            f"'{key}' is no private key on an elliptic curve, in PEM and without a password:"
            f" {reason}. Type: {MAKE_KEY} -out key.pem"
        ) from None


def _hashing(*others: str) -> Any:
    """Take every file but the signature and `others`, those of version control included."""
    config = _package("hashing").Config()
    return config.set_ignored_paths(paths=[SIGNATURE, *others], ignore_git_paths=False)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(f"model_signing.{name}")
    except ImportError as error:
        # It needs pyopenssl without saying so in its own requirements.
        raise ZooError(
            f"Signatures need the package model-signing ({error})."
            " Type: pip install model-signing pyopenssl"
        ) from None


def _sentence(error: Exception) -> str:
    """Return an error's first sentence; of a mismatch not the digests, which say nothing."""
    sentence = first_line(error).split(". ")[0]
    return sentence.split(": [")[0].rstrip(".")[:200]
