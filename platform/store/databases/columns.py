"""Columns that mean the same in SQLite and PostgreSQL."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""64 bits: SQLite's INTEGER has them, PostgreSQL's has 32."""
AUTO_ID = INTEGER
# PostgreSQL sorts by the rules of a locale by default; "C" is code point order, as in SQLite and Python.
_TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def text(name: str, *, primary_key: bool = False, nullable: bool = False, **options: Any) -> sa.Column[str]:
    """A column of text in code point order."""
    return sa.Column(name, _TEXT, primary_key=primary_key, nullable=nullable, **options)


def integer(
    name: str, *, primary_key: bool = False, nullable: bool = False, **options: Any
) -> sa.Column[int]:
    """A column of 64 bits whose value the program gives."""
    return sa.Column(
        name, INTEGER, primary_key=primary_key, nullable=nullable, autoincrement=False, **options
    )


def blob(name: str, *, nullable: bool = False) -> sa.Column[bytes]:
    """A column of bytes."""
    return sa.Column(name, sa.LargeBinary, nullable=nullable)
