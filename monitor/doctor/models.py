"""Looks at the network and what it is to run on."""

from __future__ import annotations

from monitor.doctor.facts import Facts
from monitor.doctor.finding import Finding, ok, problem, warning

_CPU_SERVES = "until then the CPU serves"


def model(facts: Facts) -> list[Finding]:
    """Load the bundle, and let the CPU backend read a picture with it."""
    from engines.bundle import Bundle
    from engines.domain_file import monitor_of
    from engines.errors import BackendError, BundleError
    from monitor.bundle_choice import serving_bundle
    from monitor.network import choose_backend

    settings = facts.settings.model
    wanted = settings.backend
    try:
        bundle = Bundle.load(serving_bundle(facts.settings.state.directory, settings.bundle))
        monitor_of(bundle)
        choose_backend("onnxruntime").build(bundle).close()
    except BundleError as error:
        return [problem("model.bundle", *_bundle_words(facts, str(error)))]
    except BackendError as error:
        return [problem("model.backend", str(error), "install icewatch anew")]
    found = [ok("model.bundle", f"{bundle.name} {bundle.version} can be used")]
    if wanted not in ("auto", "onnxruntime", "tensorrt"):
        try:
            choose_backend(wanted)
        except BackendError as error:
            cause, _, remedy = str(error).partition("; ")
            default = 'set model.backend = "auto"'
            found.append(problem("model.backend", cause, remedy.rstrip(".") or default))
    return found


def _bundle_words(facts: Facts, sentence: str) -> tuple[str, str]:
    cause, _, remedy = sentence.rstrip(".").partition("; ")
    default = f'copy the bundle again, or set model.bundle = "default" in {facts.config}'
    return cause, remedy or default


def gpu(facts: Facts) -> list[Finding]:
    """See whether the GPU can serve where it is wanted."""
    wanted = facts.settings.model.backend
    if wanted not in ("auto", "tensorrt"):
        return []
    from engines.bundle import Bundle
    from engines.errors import BundleError
    from engines.gpu.installation import Site
    from engines.plans.errors import PlanError
    from monitor.bundle_choice import serving_bundle

    state = facts.settings.state.directory
    try:
        bundle = Bundle.load(serving_bundle(state, facts.settings.model.bundle))
        site = Site.find(bundle, state / "engines")
    except BundleError:
        return []  # said already
    except PlanError as error:
        return _no_gpu(wanted, error.reason, str(error))
    return _plans(site)


def _no_gpu(wanted: str, reason: str, sentence: str) -> list[Finding]:
    cause, _, remedy = sentence.rstrip(".").partition("; ")
    if wanted == "auto":
        return [ok("model.backend", f"the CPU serves ({cause})")]
    remedies = {
        "no_gpu": 'see what `nvidia-smi` says, or set model.backend = "onnxruntime"',
        "library_missing": "pip install 'icewatch[gpu]' into icewatch's environment",
    }
    remedy = remedies.get(reason) or remedy or 'set model.backend = "onnxruntime"'
    return [problem("model.backend", cause, f"{remedy}; {_CPU_SERVES}")]


def _plans(site: object) -> list[Finding]:
    from engines.gpu.installation import Site
    from engines.plans.errors import PlanError

    assert isinstance(site, Site)
    try:
        found = site.store.survey()
    except FileNotFoundError:
        return [ok("model.backend", "the GPU serves once its plan is built, in the background")]
    except PlanError as error:
        cause, _, remedy = str(error).rstrip(".").partition("; ")
        return [problem("model.backend", cause, remedy or "delete the folder")]
    networks = [one for one in found if one.name.endswith(".plan")]
    broken = [one for one in networks if one.fault]
    if broken:
        cause = f"a plan of the engine cannot be used: {broken[0].fault}"
        return [warning("model.backend", cause, "nothing need be done: it is built anew")]
    keys = [one.record.key for one in networks if one.record]
    if networks and site.key not in keys:
        cause = "the engine is stale: library, driver, GPU or bundle changed since it was built"
        remedy = "let icewatch run: it builds another, and the CPU serves meanwhile"
        return [warning("model.backend", cause, remedy)]
    return [ok("model.backend", "the GPU can serve")]
