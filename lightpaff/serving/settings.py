"""What a server is told; every worker process reads it out of its environment."""

import json
import os
from dataclasses import asdict, dataclass

ENVIRONMENT = "LIGHTPAFF_SERVE"
KEY_ENVIRONMENT = "LIGHTPAFF_API_KEY"


@dataclass(frozen=True)
class ServeSettings:
    """How an export is served.

    Attributes:
        export: its directory.
        threads: that work on one batch; 0 is all cores.
        most_together: inputs of one batch.
        wait_ms: how long a batch that is not full waits for more.
        queue: inputs that may wait; what comes beyond is refused with 503.
        most_bytes: of a request's body.
        most_inputs: of a request.
        most_characters: of one text.
        most_characters_in_all: of a request's texts together.
        most_tokens: that one request may have written.
        timeout_s: for an answer, queue included.
        body_timeout_s: for a request's whole body.
        shadow: a run's directory, whose teacher is asked for a sampled share too; empty for none.
        shadow_share: of the requests, 0 to 1.
        api_key: that requests must have; empty for none. Never shown.
    """

    export: str
    threads: int = 1
    most_together: int = 32
    wait_ms: float = 2.0
    queue: int = 512
    most_bytes: int = 1 << 20
    most_inputs: int = 64
    most_characters: int = 20_000
    most_characters_in_all: int = 100_000
    most_tokens: int = 512
    timeout_s: float = 30.0
    body_timeout_s: float = 10.0
    shadow: str = ""
    shadow_share: float = 0.05
    api_key: str = ""

    def to_environment(self) -> None:
        """For the worker processes that this one starts."""
        os.environ[ENVIRONMENT] = json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> "ServeSettings":
        """What `to_environment` wrote."""
        return cls(**json.loads(os.environ[ENVIRONMENT]))
