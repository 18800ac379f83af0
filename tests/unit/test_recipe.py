import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lightpaff.errors import UserError
from lightpaff.recipe import Recipe, fingerprint_of
from lightpaff.recipe_families import FAMILIES

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))
COLUMNS_OF_DATA = {
    "sst2": {"sentence", "label"},
    "imdb": {"sentence", "label"},
    "qqp_subset": {"sentence1", "sentence2", "label"},
    "multi30k": {"en", "de", "fr", "cs"},
    "tatoeba_en_ro": {"en", "ro"},
    "tatoeba_en_de": {"en", "de"},
    "aeslc": {"document", "summary", "references"},
}
"""Of the JSON lines that recipes look for under data/."""
CONTENT: dict[str, Any] = {
    "name": "tiny",
    "teacher": {"source": "owner/model"},
    "student": {"layers": 2},
    "pretraining": {"corpus": ["corpus.txt"], "training": {"steps": 4, "learning_rate": 1e-3}},
    "tasks": [{"name": "sentiment", "train": "train.jsonl", "validation": "validation.jsonl"}],
    "fine_tuning": {"training": {"epochs": 1, "learning_rate": 1e-3}},
}


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(CONTENT))
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_ready_recipes_are_valid(path: Path) -> None:
    """Valid, called as their file, without a path of somebody's machine."""
    recipe = Recipe.load(path)
    assert recipe.name == path.stem
    words = FAMILIES[recipe.family]
    assert {task.objective for task in recipe.tasks} <= set(words.tasks)
    assert recipe.pretraining is None or recipe.pretraining.objective == words.pretraining
    places = list(places_in(yaml.safe_load(path.read_text())))
    assert len(places) > len(recipe.tasks)
    for place in places:
        assert not place.startswith(("/", "~", ".", "file:")), place
        assert place.startswith(("hub:", "wheel:")) or "://" not in place, place


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_ready_recipes_name_columns_that_their_data_has(path: Path) -> None:
    recipe = Recipe.load(path)
    for source in recipe.pretraining.corpus if recipe.pretraining else []:
        if (known := columns_of(source.path)) is not None:
            assert source.text in known
    for task in recipe.tasks:
        named = (
            {task.columns.source, task.columns.target, task.columns.references or task.columns.target}
            if task.objective == "translate"
            else {task.columns.text, task.columns.text_pair or task.columns.text, task.columns.label}
        )
        for source in [*task.train, task.validation, *([task.test] if task.test else []), *task.unlabelled]:
            if (known := columns_of(source.path)) is not None:
                assert named <= known, f"{task.name}: {named - known}"


def columns_of(place: str) -> set[str] | None:
    """Of a file under data/ whose rows have columns."""
    parts = Path(place).parts
    return COLUMNS_OF_DATA[parts[-2]] if "data" in parts and ".jsonl" in place else None


def places_in(content: dict[str, Any]) -> Iterator[str]:
    """Every source of data in a recipe, as it is written there."""
    for key in ("corpus", "train", "validation", "test", "unlabelled"):
        sources = content.get(key) or []
        for source in sources if isinstance(sources, list) else [sources]:
            yield source if isinstance(source, str) else source["path"]
    for section in (content.get("pretraining"), *content.get("tasks", [])):
        if section:
            yield from places_in(section)


def test_defaults_are_filled_in(recipe_file: Path) -> None:
    recipe = Recipe.load(recipe_file)
    assert recipe.pretraining is not None
    assert recipe.pretraining.distillation.weight == 0.9
    assert recipe.fine_tuning.distillation.weight == 0.5
    assert recipe.tasks[0].metric_names == ["accuracy", "f1"]
    assert recipe.tasks[0].columns.text == "sentence"


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ("{teacher: {}}", "'teacher' cannot be a name; take letters, digits"),
        ("{a/b: {}}", "'a/b' cannot be a name"),
        (
            "{small: {student.layers: 1}}",
            "arms.small: 'student.layers' is the same in all arms; give single keys of",
        ),
        ("{deep: {fine_tuning.training.steps.x: 1}}", "arms.deep: 'fine_tuning.training.steps.x' is the same in all"),
        ("{two: {fine_tuning.training.steps: 5}}", "arms.two: fine_tuning.training: give exactly one of steps, tokens"),
        ("{loud: {fine_tuning.distillation.weight: 2}}", "arms.loud: fine_tuning.distillation.weight: .* found 2"),
        (
            "{warm: {pretraining.distillation.temperature: 2.0}}",
            "arms.warm: pretraining.distillation has temperature 2.0, the student 1.0, and one store, ",
        ),
        (
            "{many: {pretraining.distillation.targets: {store: own, draws: 3}}, "
            "few: {pretraining.distillation.targets: {store: own, kind: top-k}}}",
            "arms.few: pretraining.distillation has targets.kind top-k, arms.many sampled, and one store, ",
        ),
        ("{odd: {fine_tuning.distillation.wait: 1}}", "arms.odd: fine_tuning.distillation.wait: .* found 1"),
    ],
)
def test_arms_that_are_none_are_refused(recipe_file: Path, arms: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe.load(recipe_file, ["pretraining.distillation.targets.store=stored", f"arms={arms}"])


@pytest.mark.parametrize(
    "arm",
    [
        "{pretraining.distillation.weight: 0.1}",
        "{pretraining.distillation.weight: 0, pretraining.distillation.temperature: 2}",
        "{pretraining.distillation.targets: {store: own}, pretraining.distillation.temperature: 2}",
        "{pretraining.distillation.targets: {store: stored, kind: live}, pretraining.distillation.temperature: 2}",
        "{pretraining.distillation.divergence: reverse_kl}",
        # Of few classes all are kept.
        "{fine_tuning.distillation.temperature: 2}",
    ],
)
def test_arms_share_a_store_where_they_may(recipe_file: Path, arm: str) -> None:
    stores = [f"{stage}.distillation.targets.store=stored" for stage in ("pretraining", "fine_tuning")]
    assert Recipe.load(recipe_file, [*stores, f"arms={{other: {arm}}}"]).arms


def test_the_metrics_of_a_regression_are_correlations(recipe_file: Path) -> None:
    assert Recipe.load(recipe_file, ["tasks.0.objective=regress"]).tasks[0].metric_names == ["pearson", "spearman"]
    assert Recipe.load(recipe_file, ["tasks.0.metrics=[matthews]"]).tasks[0].metric_names == ["matthews"]


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("student.layers=4", lambda recipe: recipe.student.layers == 4),
        ("name=other", lambda recipe: recipe.name == "other"),
        ("control=false", lambda recipe: recipe.control is False),
        ("seeds.fine_tuning=[1, 2]", lambda recipe: recipe.seeds.fine_tuning == [1, 2]),
        ("tasks.0.columns.label=stars", lambda recipe: recipe.tasks[0].columns.label == "stars"),
        ("tasks.0.test=test.csv", lambda recipe: recipe.tasks[0].test.path.endswith("/test.csv")),
        ("fine_tuning.distillation.weight=0", lambda recipe: recipe.fine_tuning.distillation.weight == 0),
        ("pretraining.corpus.0=other.txt", lambda recipe: recipe.pretraining.corpus[0].path.endswith("/other.txt")),
        ("pretraining=null", lambda recipe: recipe.pretraining is None),
        (
            "pretraining.distillation={targets: {kind: sampled}}",
            lambda recipe: (
                recipe.pretraining.distillation.weight == 0.9
                and recipe.pretraining.distillation.targets.kind == "sampled"
                and recipe.pretraining.distillation.targets.draws == 12
            ),
        ),
        (
            "fine_tuning.distillation={temperature: 2}",
            lambda recipe: recipe.fine_tuning.distillation.weight == 0.5,
        ),
        ("fine_tuning.training={steps: 3, learning_rate: 0.1}", lambda recipe: recipe.fine_tuning.training.steps == 3),
    ],
)
def test_overrides(recipe_file: Path, override: str, read: Any) -> None:
    before = Recipe.load(recipe_file)
    recipe = Recipe.load(recipe_file, [override])
    assert read(recipe)
    assert recipe.fingerprint() != before.fingerprint()


def test_the_last_override_wins(recipe_file: Path) -> None:
    assert Recipe.load(recipe_file, ["student.layers=4", "student.layers=6"]).student.layers == 6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.layers", "--set student.layers: write it as key.path=value, such as --set student.layers=4"),
        ("=4", "--set =4: write it as key.path=value"),
        ("student.layers.x=1", "--set student.layers.x=1: student.layers holds a value, not keys"),
        ("tasks.1.name=x", "--set tasks.1.name=x: '1' is not a place in a list of 1; count from 0"),
        ("tasks.first=x", "--set tasks.first=x: 'first' is not a place in a list of 1; count from 0"),
        ("student.layers=[1", "--set student.layers=[1: the value is not valid YAML; quote it"),
        ("student.layer=4", "unknown key 'student.layer'; known here: layers, decoder_layers, hidden_size, heads"),
        ("tasks.0.colums.text=x", "unknown key 'tasks.0.colums'; known here: name, objective, train, validation"),
        ("tasks.0.train=[{path: a.csv, sha: x}]", "unknown key 'tasks.0.train.0.sha'; known here: path, sha256"),
        ("tasks.0.test={path: a.csv, sha: x}", "unknown key 'tasks.0.test.sha'; known here: path, sha256"),
        ("tasks.0.labels=[[a], b]", "key 'tasks.0.labels.0': Input should be a valid string"),
        ("student.layers=0", "key 'student.layers': Input should be greater than 0; found 0"),
        ("student.layers=many", "key 'student.layers': Input should be a valid integer"),
        ("student.layers=.nan", "key 'student.layers': "),
        ("fine_tuning.training.learning_rate=.inf", "key 'fine_tuning.training.learning_rate': "),
        ("fine_tuning.distillation.weight=1.5", "key 'fine_tuning.distillation.weight': "),
        (
            "fine_tuning.distillation.temperature=1.0e+30",
            "key 'fine_tuning.distillation.temperature': Input should be less than or equal to 1000; found 1e+30",
        ),
        ("fine_tuning.training.steps=3", "exactly one of steps, tokens and epochs; found steps, epochs"),
        ("fine_tuning.training.epochs=null", "exactly one of steps, tokens and epochs; found none"),
        ("teacher.source=5", "key 'teacher.source': Input should be a valid string; found 5"),
        ("teacher.from_scratch={layers: 2, hidden_size: 8, heads: 2, feed_forward: 8}", "exactly one of source and"),
        ("student={}", "key 'student.layers' is missing; add it"),
        ("pretraining.corpus=[]", "key 'pretraining.corpus': List should have at least 1 item"),
        ("name=a name", "key 'name': String should match pattern"),
        ("name=..", "key 'name': String should match pattern"),
        ("name=steps", "the name 'steps' is taken by the folder that runs share; take another"),
        (
            "tasks.0.metrics=[pearson]",
            "metric 'pearson' does not fit the objective classify; take accuracy, f1, matthews",
        ),
        (
            "pretraining.distillation={divergence: reverse_kl, targets: {kind: sampled}}",
            "targets.kind is sampled, but divergence reverse_kl needs every class; set targets.kind to live",
        ),
        (
            "fine_tuning.distillation={targets: {kind: top-k, proposal: 2}}",
            "targets.proposal is for sampled, not for top-k; leave it out",
        ),
        ("pretraining.distillation={targets: {kind: all}}", "key 'pretraining.distillation.targets.kind': "),
        ("pretraining.distillation={targets: {draw: 3}}", "unknown key 'pretraining.distillation.targets.draw'; known"),
        ("tasks.0.labels=[no, yes]", "YAML reads no, yes, on, off, true and false as truth values"),
        ("seeds.fine_tuning=[1, 1]", "seeds.fine_tuning needs different seeds; found [1, 1]"),
        ("teacher.pretraining={steps: 1, learning_rate: 1}", None),
    ],
)
def test_what_is_wrong_is_told_in_one_line(recipe_file: Path, override: str, message: str | None) -> None:
    if message is None:
        assert Recipe.load(recipe_file, [override]).teacher.pretraining is not None
        return
    with pytest.raises(UserError) as caught:
        Recipe.load(recipe_file, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert override in str(caught.value) or str(recipe_file) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"pretraining": None, "teacher": {"source": "a/b", "pretraining": {"steps": 1, "learning_rate": 1}}},
            "corpus",
        ),
        ({"teacher": {}}, "give exactly one of source and from_scratch"),
        ({"tasks": CONTENT["tasks"] * 2}, "tasks need different names; found sentiment, sentiment"),
        ({"tasks": []}, "key 'tasks': List should have at least 1 item"),
        ({"family": "LSTM"}, "key 'family': Input should be 'encoder', 'decoder' or 'encoder-decoder'; found 'LSTM'"),
    ],
)
def test_sections_must_fit_each_other(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, **changes}))
    with pytest.raises(UserError) as caught:
        Recipe.load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


TRANSLATE: dict[str, Any] = {"objective": "translate", "columns": {"source": "en", "target": "de"}}
CLM: dict[str, Any] = {"objective": "clm", "max_length": 64}
MSSM: dict[str, Any] = {**CONTENT["pretraining"], "objective": "mssm"}


def task_with(**keys: Any) -> dict[str, Any]:
    return {"tasks": [{**CONTENT["tasks"][0], **keys}]}


FAMILY_MISMATCHES: list[tuple[dict[str, Any], str]] = [
    (
        {"family": "decoder"},
        "pretraining.objective is mlm, but the family decoder is pre-trained with clm; set it to that, or take",
    ),
    (
        {"pretraining": MSSM},
        "pretraining.objective is mssm, but the family encoder is pre-trained with mlm; set it to that, or take",
    ),
    (
        {"family": "decoder", "pretraining": None},
        "the objective of the task sentiment is classify, but the family decoder has clm; take one of these",
    ),
    (
        {"family": "encoder-decoder", "pretraining": None, **task_with(**CLM)},
        "the objective of the task sentiment is clm, but the family encoder-decoder has translate; take one of these",
    ),
    (
        task_with(**TRANSLATE),
        "the objective of the task sentiment is translate, but the family encoder has classify, regress, tag, answer;",
    ),
    (
        {"family": "decoder", "pretraining": None, "student": {"layers": 2, "decoder_layers": 2}, **task_with(**CLM)},
        "student.decoder_layers is for the family encoder-decoder; leave it out",
    ),
    (task_with(stride=8), "key 'tasks.0': stride is for clm, not for classify; leave it out"),
    (task_with(**CLM, stride=65), "key 'tasks.0': stride is 65, more than max_length 64; lower it"),
    (task_with(**CLM, metrics=["bleu"]), "metric 'bleu' does not fit the objective clm; take word_perplexity, perplex"),
    (task_with(**TRANSLATE, metrics=["accuracy"]), "'accuracy' does not fit the objective translate; take bleu, chrf"),
    (task_with(**CLM, labels=[0, 1]), "labels is for classify and tag, not for clm; leave it out"),
    (
        task_with(objective="answer", unlabelled=["a.txt"]),
        "unlabelled is for classify and regress and tag and clm and translate, not for answer",
    ),
    (
        task_with(**TRANSLATE, unlabelled=["a.jsonl"]),
        "unlabelled of translate gets its targets from the teacher; add sequence_distillation: {}",
    ),
    (task_with(objective="tag", columns={"group": "film"}), "columns.group is for classify and regress, not for tag"),
    (task_with(**CLM, columns={"text_pair": "b"}), "columns.text_pair is for classify and regress and answer, not for"),
    (task_with(max_target_length=64), "max_target_length is for translate, not for classify; leave it out"),
    (task_with(**CLM, languages={"source": "en", "target": "de"}), "languages is for translate, not for clm"),
    (task_with(**TRANSLATE, languages={"source": "en"}), "key 'tasks.0.languages.target' is missing; add it"),
    (task_with(generation={"beams": 1}), "generation is for translate, not for classify; leave it out"),
    (task_with(sequence_distillation={}), "sequence_distillation is for translate, not for classify; leave it out"),
    (
        task_with(validation={"path": "rows.txt", "document": "file"}),
        "key 'tasks.0': document of rows.txt is file: whole documents are for clm, not for classify; leave it out",
    ),
    (
        {"pretraining": {**CONTENT["pretraining"], "corpus": [{"path": "a.txt", "document": "blank-line"}]}},
        "key 'pretraining': document of a.txt is blank-line: whole documents are for clm, not for mlm; leave it out",
    ),
    (
        {"pretraining": {**CONTENT["pretraining"], "corpus": ["a.txt", {"path": "b.txt", "language": "en"}]}},
        "key 'pretraining': language of b.txt is 'en': languages are for mssm, not for mlm; leave it out, or take",
    ),
    (
        {"pretraining": {**MSSM, "corpus": [{"path": "b.txt", "language": "<en>"}]}},
        "key 'pretraining.corpus.0.language': String should match pattern",
    ),
    (
        {"pretraining": {**MSSM, "mask_rate": 0.3}},
        "key 'pretraining': mask_rate is for mlm, not for mssm; leave it out",
    ),
    (
        {"pretraining": {**CONTENT["pretraining"], "fragment_ratio": 0.3}},
        "key 'pretraining': fragment_ratio is for mssm, not for mlm; leave it out",
    ),
]


@pytest.mark.parametrize(("changes", "message"), FAMILY_MISMATCHES)
def test_keys_must_fit_family_and_objective(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, **changes}))
    with pytest.raises(UserError) as caught:
        Recipe.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


SIZES: dict[str, Any] = {"layers": 2, "hidden_size": 8, "heads": 2, "feed_forward": 8}


@pytest.mark.parametrize(
    ("family", "architecture", "message"),
    [
        ("decoder", "bert", "is bert, but the family is decoder; take one of gpt2, llama, qwen2, qwen3, mistral, gem"),
        (
            "encoder",
            "t5",
            "is t5, but the family is encoder; take one of bert, roberta, xlm-roberta, camembert, mpnet",
        ),
        ("encoder-decoder", "gpt2", "is gpt2, but the family is encoder-decoder; take one of bart, mbart, marian, m2m"),
        ("decoder", "gpt5", "key 'teacher.from_scratch.architecture': Input should be 'bert', 'roberta', "),
    ],
)
def test_an_architecture_is_of_one_family(tmp_path: Path, family: str, architecture: str, message: str) -> None:
    teacher = {"from_scratch": {"architecture": architecture, **SIZES}, "pretraining": {"steps": 1, "learning_rate": 1}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, "family": family, "teacher": teacher}))
    with pytest.raises(UserError) as caught:
        Recipe.load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["decoder", "encoder-decoder"])
def test_recipes_of_other_families(tmp_path: Path, family: str) -> None:
    """Also that what is written out with its defaults is read again."""
    corpus = {"decoder": {"path": "a.txt", "document": "file"}, "encoder-decoder": {"path": "a.txt", "language": "en"}}
    content = {
        **CONTENT,
        "family": family,
        "pretraining": {
            **CONTENT["pretraining"],
            "objective": FAMILIES[family].pretraining,  # type: ignore[index]
            "corpus": [corpus[family]],
        },
        **(task_with(**CLM, stride=64) if family == "decoder" else task_with(**TRANSLATE)),
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    recipe = Recipe.load(path)
    task = recipe.tasks[0]
    assert task.columns.text == ("text" if family == "decoder" else "sentence")
    assert task.metric_names == (["word_perplexity", "perplexity"] if family == "decoder" else ["bleu", "chrf"])
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert Recipe.load(path) == recipe
    assert Recipe.load(path, ["tasks.0.columns.text=body"]).tasks[0].columns.text == "body"


def test_the_schema_knows_every_key() -> None:
    schema = Recipe.model_json_schema()
    sections = {"Recipe": schema, **schema["$defs"]}
    for name, section in sections.items():
        assert section["additionalProperties"] is False, name
    expected: dict[str, set[str]] = {
        "Recipe": {"family"},
        "Student": {"decoder_layers"},
        "FromScratch": {"architecture", "decoder_layers", "lowercase", "max_length"},
        "Pretraining": {"objective", "mask_rate", "fragment_ratio"},
        "CorpusSource": {"language", "document"},
        "Source": {"document"},
        "Task": {"stride", "max_target_length", "languages", "generation", "sequence_distillation"},
        "Columns": {"text", "source", "target", "references"},
        "Languages": {"source", "target"},
        "Generation": {"beams", "length_penalty"},
        "SequenceDistillation": {"ratio"},
    }
    for name, keys in expected.items():
        assert keys <= sections[name]["properties"].keys(), name
    assert schema["properties"]["family"]["enum"] == list(FAMILIES)
    known = [name for words in FAMILIES.values() for name in words.architectures]
    assert sections["FromScratch"]["properties"]["architecture"]["enum"] == known
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize(
    ("fractions", "take", "message"),
    [
        ({"train": 0.8, "test": 0.1}, "train", "fractions sum to 0.9; make them sum to 1"),
        ({"train": 0.8, "test": 0.2}, "dev", "take is 'dev'; name one of train, test"),
    ],
)
def test_a_split_must_be_whole(tmp_path: Path, fractions: dict[str, float], take: str, message: str) -> None:
    source = {"path": "rows.csv", "split": {"by": "film", "fractions": fractions, "take": take}}
    path = tmp_path / "recipe.yaml"
    path.write_text(
        yaml.safe_dump({**CONTENT, "tasks": [{**CONTENT["tasks"][0], "validation": source}]}, sort_keys=False)
    )
    with pytest.raises(UserError, match=r"key 'tasks\.0\.validation\.split'") as caught:
        Recipe.load(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "is not valid YAML"),
        (b"- a\n- b", "holds list, not keys and values"),
        (b"", "holds NoneType, not keys and values"),
        (b"\xff\xfe\x00", "is not UTF-8 text (byte 0)"),
    ],
)
def test_what_is_no_recipe_is_told_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        Recipe.load(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml: no such recipe"):
        Recipe.load(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="is a directory"):
        Recipe.load(tmp_path)


def test_local_paths_are_beside_the_recipe(recipe_file: Path) -> None:
    (recipe_file.parent / "model").mkdir()
    remote = ["hub:owner/data", "wheel:a==1#b.csv", "s3://bucket/file.csv", "/absolute/file.csv"]
    overrides = [f"pretraining.corpus=[../corpus.txt, {', '.join(repr(path) for path in remote)}]"]
    overrides += ["tasks.0.unlabelled=[more.txt]", "tasks.0.teacher=model", "student.initialisation=./small"]
    recipe = Recipe.load(recipe_file, [*overrides, "teacher.source=[owner/model, model, 'wheel:a==1#m']"])
    folder = recipe_file.parent
    assert recipe.pretraining is not None
    assert [source.path for source in recipe.pretraining.corpus] == [str(folder.parent / "corpus.txt"), *remote]
    task = recipe.tasks[0]
    assert [source.path for source in task.train] == [str(folder / "train.jsonl")]
    assert task.validation.path == str(folder / "validation.jsonl")
    assert task.unlabelled[0].path == str(folder / "more.txt")
    assert task.teacher == str(folder / "model")
    assert recipe.student.initialisation == str(folder / "small")
    assert recipe.teacher.source == ["owner/model", str(folder / "model"), "wheel:a==1#m"]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("stored", "FOLDER/stored"),
        ("../stored", "PARENT/stored"),
        ("~/stored", "/home/somebody/stored"),
        ("/stored", "/stored"),
        ("s3://bucket/stored", "s3://bucket/stored"),
        ("null", None),
    ],
)
def test_stores_are_beside_the_recipe(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, given: str, read: str | None
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    folder = recipe_file.parent
    expected = read and read.replace("FOLDER", str(folder)).replace("PARENT", str(folder.parent))
    keys = [f"{stage}.distillation.targets" for stage in ("pretraining", "fine_tuning")]
    arms = ["arms={other: {" + ", ".join(f"{key}: {{store: {given}}}" for key in keys) + "}}"]
    recipe = Recipe.load(recipe_file, [*(f"{key}.store={given}" for key in keys), *arms])
    for read_recipe in (recipe, recipe.overridden(recipe.arms["other"])):
        assert read_recipe.pretraining is not None
        assert read_recipe.pretraining.distillation.targets.store == expected
        assert read_recipe.fine_tuning.distillation.targets.store == expected


def test_the_home_directory_is_found(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Recipe.load(recipe_file, ["tasks.0.test=~/t.csv"]).tasks[0].test.path == "/home/somebody/t.csv"  # type: ignore[union-attr]


@pytest.mark.parametrize("word", ["random", "teacher"])
def test_a_way_to_start_is_no_path(recipe_file: Path, word: str) -> None:
    (recipe_file.parent / word).mkdir()
    assert Recipe.load(recipe_file, [f"student.initialisation={word}"]).student.initialisation == word


def test_the_fingerprint_is_of_what_is_meant(tmp_path: Path, recipe_file: Path) -> None:
    first = Recipe.load(recipe_file).fingerprint()
    spelled_out = tmp_path / "spelled_out.yaml"
    content = {**dict(reversed(CONTENT.items())), "control": True, "precision": "auto"}
    spelled_out.write_text("# a comment\n" + yaml.safe_dump(content, sort_keys=False))
    assert Recipe.load(spelled_out).fingerprint() == first
    assert Recipe.load(spelled_out, ["seeds.pretraining=1"]).fingerprint() != first


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), JSON_LIKE, max_size=4))
@settings(deadline=None)
def test_the_order_of_keys_does_not_count(content: dict[str, Any]) -> None:
    assert fingerprint_of(content) == fingerprint_of(dict(reversed(content.items())))
    assert fingerprint_of({**content, "one more": 1}) != fingerprint_of(content)


def test_a_fingerprint_of_what_json_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        fingerprint_of({"a": float("nan")})
