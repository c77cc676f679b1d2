"""`keyhop version`."""

from __future__ import annotations

import platform
import ssl

import click

import keyhop
from keyhop.cli import output
from keyhop.cli.settings import common_options


@click.command()
@common_options
def version() -> None:
    """Version of Keyhop and of what it stands on.

    \b
    Example:
      keyhop version -o json
    """
    answer = {
        "apiVersion": output.API_VERSION,
        "version": keyhop.__version__,
        "python": platform.python_version(),
        "tls": ssl.OPENSSL_VERSION,
    }
    output.emit(answer, lambda: f"Keyhop {keyhop.__version__}  Python {answer['python']}  {answer['tls']}")
