"""What one rank says of another."""

import pytest

from lightpaff.errors import UserError
from lightpaff.ranks import told_of_the_others


def test_only_what_the_others_did_is_told_of_them() -> None:
    with pytest.raises(UserError, match="another rank ended"), told_of_the_others():
        raise RuntimeError("[pair.cc:547] Connection closed by peer [127.0.0.1]:3415")
    with pytest.raises(RuntimeError, match="out of memory"), told_of_the_others():
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
