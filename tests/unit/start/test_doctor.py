"""What the machine has."""


def test_the_doctor_says_what_is_there() -> None:
    from lightpaff.start.doctor import examine

    found = {finding.name: finding.value for finding in examine()}
    assert {"processor", "threads", "memory", "disk here", "torch", "ONNX Runtime"} <= set(found)
    assert "x as fast" in found["bf16 against float32"]
