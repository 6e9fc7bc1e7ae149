"""Renders a Helm chart with Helm's own library, as `helm template` does, and says what is wrong with what comes out.

Takes the chart's folder, and the values as YAML on its standard input. Prints a JSON object: `objects`, what came out; `problems`, what Helm's
linter, the schemas of Kubernetes, KEDA and the Prometheus operator find in it; or only `refused`, why the chart cannot be rendered with
these values. It judges nothing else: what must stand in the objects is for the tests.
"""

import json
import sys

import helm_python
import kubernetes_validate
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject, TriggerAuthentication
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor

# The oldest that Chart.yaml allows, the newest of which there are schemas, and some between.
KUBERNETES = ["1.25", "1.28", "1.31", "1.34", "1.37"]

# What Kubernetes itself does not know, by the types that are made from the definitions of who does.
OTHERS = {kind.__name__: kind for kind in (ScaledObject, TriggerAuthentication, ServiceMonitor)}


def unknown(written, read, path=""):
    """What stands in an object and was not read from it: fields that there are not."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            if key not in read:
                yield f"{path}.{key}"
            else:
                yield from unknown(value, read[key], f"{path}.{key}")
    elif isinstance(written, list) and isinstance(read, list):
        for index, (one, other) in enumerate(zip(written, read)):
            yield from unknown(one, other, f"{path}[{index}]")


def problems(thing):
    """What its schema says of an object."""
    name = f"{thing['kind']} {thing['metadata']['name']}"
    if thing["kind"] in OTHERS:
        try:
            read = OTHERS[thing["kind"]].model_validate(thing)
        except ValueError as error:
            yield f"{name}: {error}"
        else:
            for path in unknown(thing, read.model_dump(mode="json", by_alias=True, exclude_unset=True)):
                yield f"{name}: there is no {path}"
        return
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except Exception as error:  # a wrong object or one that this version does not know: both are findings
            yield f"{name} on Kubernetes {version}: {error}"


def main():
    folder, values = sys.argv[1], yaml.safe_load(sys.stdin) or {}
    try:
        with helm_python.Chart.load(folder) as chart:
            rendered = chart.render(values, name="dossier", namespace="soc")
    except helm_python.HelmRenderError as error:
        return {"refused": str(error)}
    lint = helm_python.lint(folder, values, strict=True)
    found = [f"{said['path']}: {said['error']}" for said in lint["messages"] if said["severity"] > 1]
    files = (text for name, text in rendered.items() if not name.endswith(".txt"))
    objects = [thing for text in files for thing in yaml.safe_load_all(text) if thing]
    for thing in objects:
        found.extend(problems(thing))
    return {"objects": objects, "problems": found}


print(json.dumps(main()))
