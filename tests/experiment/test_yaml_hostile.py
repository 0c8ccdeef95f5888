"""YAML and code: nothing is imported without permission; hostile files are refused."""

import os
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keydnn.experiment.documents.text import MAX_BYTES
from keydnn.experiment.errors import ArtifactError, PackagedCodeError
from keydnn.experiment.io import from_yaml
from keydnn.experiment.samplers import PairedSampler, SimilarityCondition
from tests.experiment.yaml_studies import same

# -- code


MODULE = """
from keydnn.experiment.models import KeydnnBaseModel
from keydnn.experiment.samplers import SimpleSampler
ran = True
def far(a, b):
    return abs(a - b)
class Own(SimpleSampler):
    pass
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "yaml_users_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "yaml_users_module"
    sys.modules.pop("yaml_users_module", None)


def test_nothing_is_imported_without_permission(module, tmp_path):
    text = f"sampler:\n  sampler_class: PairedSampler\n  conditions:\n    age: {{metric: {module}.far}}\n"
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(PackagedCodeError, match="s.yaml: sampler, conditions, age, metric: 'yaml_users_module.far' is no class of KeyDNN"):
        from_yaml(tmp_path / "s")
    assert module not in sys.modules
    sampler = from_yaml(tmp_path / "s", allow_packaged_code=True)
    assert sampler.conditions["age"].metric is sys.modules[module].far
    assert same(from_yaml(sampler.to_yaml(tmp_path / "t"), allow_packaged_code=True), sampler)
    (tmp_path / "s.yaml").write_text(text.replace(".far", ".near"))
    with pytest.raises(ValueError, match="nothing can be imported from"):
        from_yaml(tmp_path / "s", allow_packaged_code=True)


def test_classes_of_users(module, tmp_path):
    import importlib

    own = importlib.import_module(module).Own
    path = own(batch_size=2, seed=3).to_yaml(tmp_path / "own")
    assert "sampler_class: yaml_users_module.Own" in path.read_text()
    with pytest.raises(PackagedCodeError, match="register it"):
        from_yaml(path)
    assert same(from_yaml(path, allow_packaged_code=True), own(batch_size=2, seed=3))


@pytest.mark.slow
def test_metrics_of_math_are_trusted_and_those_of_main_cannot_be_named(tmp_path):
    import math

    sampler = PairedSampler({"age": SimilarityCondition(metric=math.dist)}, seed=1)
    assert same(from_yaml(sampler.to_yaml(tmp_path / "s")), sampler)
    with pytest.raises(ImportError, match="sampler, conditions, age, metric: no import path leads to"):
        PairedSampler({"age": SimilarityCondition(metric=lambda a, b: 0.0)}).to_yaml(tmp_path / "t")
    script = textwrap.dedent(
        """
        import sys
        from keydnn.experiment.samplers import PairedSampler, SimilarityCondition
        def far(a, b):
            return 0.0
        try:
            PairedSampler({"age": SimilarityCondition(metric=far)}).to_yaml(sys.argv[1])
        except ImportError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "t")], capture_output=True, text=True, env=os.environ)
    assert "metric: no import path leads to __main__.far" in done.stdout and not (tmp_path / "t.yaml").exists()


# -- hostile files

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (BOMB, "values"),
        ("sampler: " + "[" * 500, "levels"),
        ("sampler:\n" + "".join("  " * i + "- \n" for i in range(1, 90)), "levels"),
        ("sampler: &a {b: *a}", "inside of what it names"),
        ("sampler: {<<: {a: 1}, sampler_class: SimpleSampler}", "has no '<<'"),
        ("sampler: !!python/name:os.system", "constructor"),
        ("sampler: !Own {a: 1}", "constructor"),
        ("sampler: {? [a, b] : 1}", "key"),
        ("sampler: *nobody", "undefined alias"),
        ("sampler: {}\n--- \nsampler: {}", "single document"),
        (b"\xff\xfe\x00", "no YAML"),
        (b"sampler: \x00", "no YAML"),
        ("x" * (MAX_BYTES + 1), "bytes"),
        pytest.param("sampler: [" + "1, " * 50_001 + "]", "values", marks=pytest.mark.slow),
        ("sampler: {sampler_class: SimpleSampler, seed: {$array: {dtype: O, shape: [1], values: [1]}}}", "dtype"),
        ("sampler: {sampler_class: SimpleSampler, seed: {$array: {dtype: f4, shape: [99999999], values: [1]}}}", "reshape"),
        ("sampler: {sampler_class: SimpleSampler, seed: {$bytes: '*'}}", "seed"),
        ("sampler: {sampler_class: SimpleSampler, seed: {$what: 1}}", r"unknown mark \$what"),
        ("sampler: {sampler_class: SimpleSampler, seed: " + "9" * 6000 + "}", "seed|digits"),
        ("splitter: {splitter_class: ConditionSplitter, conditions: {a: {x: {type: lambda, source: 'lambda x: x.y'}}}}", None),
        ("splitter: {splitter_class: ConditionSplitter, conditions: {a: {x: {$object: {class: os.system, config: ls}}}}}", None),
        ("splitter: {splitter_class: ConditionSplitter}", "at least one split"),
        ("splitter: {splitter_class: subprocess.Popen}", None),
    ],
    ids=range(23),
)
def test_hostile_files_are_refused(data, message, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(PackagedCodeError if message is None else ArtifactError, match=message):
        from_yaml(path)


@given(data=st.binary(max_size=200) | st.text("sampler: {}[]&*!-?|>'\"\n\t ,#%@$class_1e.", max_size=120).map(str.encode))
def test_no_bytes_do_anything_but_a_clear_error(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes") / "any.yaml"
    path.write_bytes(data)
    with pytest.raises((ArtifactError, PackagedCodeError)):
        from_yaml(path)
