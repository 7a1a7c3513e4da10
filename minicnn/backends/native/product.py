"""What Python has to know of product.h."""

REGISTER = 64  # bytes of the widest that there are
PACKED, SPARE = 24 << 10, 4 * REGISTER  # bytes: a part of the right matrix; for a row of the result


def room_for(rows: int, tables: int) -> int:
    """The bytes of working memory that a product needs: for so many rows of the result, and for
    tables of so many places in all."""
    return PACKED + 8 * tables + SPARE * rows
