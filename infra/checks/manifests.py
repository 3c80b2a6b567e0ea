"""Checks the Kubernetes manifests: against the schemas, and against each other."""

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
from jsonschema import Draft202012Validator

from consumer.broker.topology import Names
from consumer.settings import Settings, load_settings
from infra.checks.common import ROOT, Faults, complaints, read_yaml, works

VERSIONS = ("1.29", "1.37")
"""The oldest and the newest version of Kubernetes that the manifests support."""

FOLDER = Path("infra") / "kubernetes"
SCALED_OBJECT = json.loads(Path(__file__).with_name("scaledobject.schema.json").read_text())
SCALED_OBJECT_VALIDATOR = Draft202012Validator(SCALED_OBJECT)


def kubernetes(root: Path = ROOT) -> Faults:
    """Check that Kubernetes accepts every manifest, and that together they make a deployment."""
    folder = root / FOLDER
    manifests = {path.name: read_yaml(path) for path in sorted(folder.glob("*.yaml"))}
    listed = manifests.pop("kustomization.yaml")["resources"]
    if sorted(listed) != sorted(manifests):
        yield f"{FOLDER}/kustomization.yaml: lists {sorted(listed)}, and there are {sorted(manifests)}"
    for name, manifest in manifests.items():
        yield from (f"{FOLDER}/{name}: {fault}" for fault in _manifest(manifest))
    if works("kubectl", "version", "--client"):
        yield from complaints(f"{FOLDER}/kustomization.yaml", "kubectl", "kustomize", folder)
    by_kind = {manifest["kind"]: manifest for manifest in manifests.values()}
    yield from (f"{FOLDER}: {fault}" for fault in _together(by_kind))
    settings = load_settings(folder / "mcp-sessions.toml", env={})
    yield from (f"{FOLDER}/scaledobject.yaml: {fault}" for fault in _scaling(by_kind, settings))


def gateway(root: Path = ROOT) -> Faults:
    """Check the manifests of the gateway, and the settings of its pods."""
    folder = root / FOLDER / "gateway"
    manifests = {path.name: read_yaml(path) for path in sorted(folder.glob("*.yaml"))}
    listed = manifests.pop("kustomization.yaml")["resources"]
    if sorted(listed) != sorted(manifests):
        yield f"{FOLDER}/gateway/kustomization.yaml: lists {sorted(listed)}, and there are {sorted(manifests)}"
    for name, manifest in manifests.items():
        yield from (f"{FOLDER}/gateway/{name}: {fault}" for fault in _manifest(manifest))
    if works("kubectl", "version", "--client"):
        yield from complaints(f"{FOLDER}/gateway/kustomization.yaml", "kubectl", "kustomize", folder)
    by_kind = {manifest["kind"]: manifest for manifest in manifests.values()}
    yield from (f"{FOLDER}/gateway: {fault}" for fault in _serving(by_kind))


def _serving(by_kind: dict[str, dict[str, Any]]) -> Faults:
    deployment = by_kind["Deployment"]
    pods = deployment["spec"]["template"]
    labels = pods["metadata"]["labels"]
    selectors = {
        "Deployment": deployment["spec"]["selector"]["matchLabels"],
        "Service": by_kind["Service"]["spec"]["selector"],
        "PodDisruptionBudget": by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        "NetworkPolicy": by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    }
    for kind, selector in selectors.items():
        if not selector.items() <= labels.items():
            yield f"{kind} selects {selector}, but the pods have {labels}"
    scaled = by_kind["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    if (scaled["kind"], scaled["name"]) != ("Deployment", deployment["metadata"]["name"]):
        yield "the HorizontalPodAutoscaler does not scale the Deployment"
    (container,) = pods["spec"]["containers"]
    if container["args"] != ["mcp-sessions", "gateway"]:
        yield f"the pods run {container['args']} instead of a gateway"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    variables = {one["name"]: one.get("value") for one in container["env"]}
    if str(ports["http"]) != variables["MCP_SESSIONS_GATEWAY_PORT"]:
        yield f"the port http is {ports['http']}, but the gateway listens on {variables['MCP_SESSIONS_GATEWAY_PORT']}"
    probes = {"startupProbe": "/livez", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    for probe, path in probes.items():
        if container[probe]["httpGet"] != {"path": path, "port": "http"}:
            yield f"{probe} requests {container[probe]['httpGet']}, not {path} on the port http"
    before = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    needed = before + float(variables["MCP_SESSIONS_DRAIN_TIMEOUT"]) + CLOSING
    if needed > pods["spec"]["terminationGracePeriodSeconds"]:
        yield f"a gateway may take {needed:g} s to shut down, but gets {pods['spec']['terminationGracePeriodSeconds']}"


CLOSING = 5.0
"""Seconds for closing connections after running requests are answered."""


def _manifest(manifest: dict[str, Any]) -> Faults:
    if manifest["kind"] == "ScaledObject":
        for error in SCALED_OBJECT_VALIDATOR.iter_errors(manifest):
            yield f"{error.json_path}: {error.message}"
        manifest = _autoscaler(manifest)
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = ".".join(str(part) for part in error.path)
            yield f"{where}: {error.message} (Kubernetes {version})"


def _autoscaler(scaled: dict[str, Any]) -> dict[str, Any]:
    """Return the HorizontalPodAutoscaler that KEDA makes, without the parts that only KEDA knows."""
    spec = scaled["spec"]
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": scaled["metadata"]["name"]},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", **spec["scaleTargetRef"]},
            "minReplicas": spec["minReplicaCount"],
            "maxReplicas": spec["maxReplicaCount"],
            "behavior": spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
        },
    }


def _together(by_kind: dict[str, dict[str, Any]]) -> Faults:
    deployment = by_kind["Deployment"]
    pods = deployment["spec"]["template"]
    labels = pods["metadata"]["labels"]
    selectors = {
        "Deployment": deployment["spec"]["selector"],
        "PodDisruptionBudget": by_kind["PodDisruptionBudget"]["spec"]["selector"],
        "NetworkPolicy": by_kind["NetworkPolicy"]["spec"]["podSelector"],
    }
    for kind, selector in selectors.items():
        if not selector["matchLabels"].items() <= labels.items():
            yield f"{kind} selects {selector['matchLabels']}, but the pods have {labels}"
    if by_kind["ScaledObject"]["spec"]["scaleTargetRef"]["name"] != deployment["metadata"]["name"]:
        yield "the ScaledObject does not scale the Deployment"
    if pods["spec"]["serviceAccountName"] != by_kind["ServiceAccount"]["metadata"]["name"]:
        yield "the pods run under another ServiceAccount"
    (container,) = pods["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    variables = {one["name"]: one.get("value") for one in container["env"]}
    if str(ports["http"]) != variables["MCP_SESSIONS_HTTP_PORT"]:
        yield f"the port http is {ports['http']}, but the worker listens on {variables['MCP_SESSIONS_HTTP_PORT']}"
    if pods["metadata"]["annotations"]["prometheus.io/port"] != str(ports["http"]):
        yield "Prometheus scrapes another port than http"


def _scaling(by_kind: dict[str, dict[str, Any]], settings: Settings) -> Faults:
    spec = by_kind["ScaledObject"]["spec"]
    for trigger in spec["triggers"]:
        metadata = trigger["metadata"]
        if trigger["type"] == "prometheus" and float(metadata["threshold"]) >= settings.session.max_total_sessions:
            yield f"with {metadata['threshold']} sessions for each worker there is no room while one starts or leaves"
        names = Names(settings.worker.prefix)
        if trigger["type"] == "rabbitmq" and metadata["queueName"] not in (names.calls, names.unowned):
            yield f"there is no queue {metadata['queueName']} whose length shows that there are too few workers"
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    grace = by_kind["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    if [policy["type"] for policy in down["policies"]] != ["Pods"] or down["policies"][0]["value"] != 1:
        yield "more than one worker stops at a time, so a call may be handed over several times"
    if settings.worker.drain == "hand_over" and (period := down["policies"][0]["periodSeconds"]) < grace:
        yield f"the next worker stops after {period} s, but one may take {grace} s to shut down"
