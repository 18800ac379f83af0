"""A request that gets no answer."""


class RefusedError(Exception):
    """Its status, and why in a word and in a sentence."""

    def __init__(self, status: int, reason: str, told: str) -> None:
        super().__init__(told)
        self.status, self.reason, self.told = status, reason, told
