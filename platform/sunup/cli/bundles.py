"""`platform bundle` and `platform inspect`: bundles without an engine."""

import json
import shutil
from pathlib import Path
from typing import Any

import click
import msgspec

from sunup.bundle.evidence import read_proof
from sunup.bundle.handler.source import LOCK
from sunup.bundle.manifest import FEATURES, Kubernetes, Manifest
from sunup.bundle.pack import inspect as examine
from sunup.bundle.store import MANIFEST, Store, read_manifest
from sunup.cli.deploy import build
from sunup.cli.terminal import accepting, options, pairs, show_json, show_table, size, stages
from sunup.engine.kubernetes.render.pod import GPU, resources
from sunup.errors import UsageError
from sunup.settings import Project


@click.command()
@click.argument("name")
@click.option("--out", "out", type=click.Path(path_type=Path), metavar="DIR", help="Also copy the bundle to DIR.")
@accepting
@options()
def bundle(name: str, out: Path | None, accept: float, as_json: bool, project: Project) -> None:
    """Build a bundle without deploying it; `platform deploy DIR` deploys it, here or on another machine."""
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is already there. Give --out a folder that does not exist yet, or an empty one.")
    with stages(quiet=as_json) as shown:
        built = build(project, name, shown, accept)
    path = Store(project.bundles).open(built["digest"])
    if out is not None:
        path = _copy(path, out)
    proof = read_proof(path)
    if as_json:
        plan = read_manifest(path).files.get(FEATURES)
        show_json({**built, "path": str(path), "plan": plan, "parity": msgspec.to_builtins(proof)})
    else:
        click.echo(f"{built['function']} from {built['model']}: {built['digest']}")
        if proof is not None:
            click.echo(f"proven: {proof.sentence()}")
        click.echo(path)


@click.command()
@click.argument("what", metavar="DIR|DIGEST")
@options()
def inspect(what: str, as_json: bool, project: Project) -> None:
    """Show a bundle's manifest and parity proof, after checking every byte of it.

    DIGEST may be cut short as long as it is the only one that begins so.
    """
    folder = bundle_folder(project, what)
    facts = examine(folder)
    if as_json:
        show_json({"path": str(folder), **facts})
    else:
        _show(folder, read_manifest(folder), facts)


def bundle_folder(project: Project, what: str) -> Path:
    """The bundle that is meant by a folder, or by the beginning of a digest. Raises UsageError."""
    return Path(what) if (Path(what) / MANIFEST).is_file() else _find(Store(project.bundles), project, what)


def _find(store: Store, project: Project, start: str) -> Path:
    found = [digest for digest in store.list() if digest.startswith(start)]
    if len(found) == 1:
        return project.bundles / found[0]
    if found:
        raise UsageError(f"{len(found)} bundles begin with {start}: {', '.join(d[:12] for d in found)}. Give more.")
    known = ", ".join(digest[:12] for digest in store.list()) or "none"
    raise UsageError(
        f"{start} is neither a bundle's folder nor the digest of one in {project.bundles}. There: {known}."
    )


def _copy(folder: Path, out: Path) -> Path:
    """Copy whole or not at all: written beside, then renamed."""
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(folder, beside)
    beside.rename(out)
    return out


def _retrieval(manifest: Manifest, facts: dict[str, Any]) -> dict[str, str]:
    """The second model of a ranking function, and its own proof."""
    if manifest.rank is None or manifest.rank.retrieval is None:
        return {}
    model = manifest.rank.retrieval.model
    return {
        "retrieval": f"{model.name}/{model.version} ({model.flavor}, run {model.run_id})",
        "its parity": ", ".join(f"{name} {value}" for name, value in facts["retrieval"].items()),
    }


def _kubernetes(asked: Kubernetes | None) -> dict[str, str]:
    """What a pod of it asks for on a cluster, defaults filled in, and who can reach it; nothing without the table."""
    if asked is None:
        return {}
    said = resources(asked)
    gpus = f", gpu {said['limits'][GPU]}" if asked.gpu else ""
    wanted = f"cpu {said['requests']['cpu']}, memory {said['limits']['memory']}{gpus}"
    return {"kubernetes": f"{wanted}, visibility {asked.visibility}"}


def _show(folder: Path, manifest: Manifest, facts: dict[str, Any]) -> None:
    model = manifest.model
    pairs(
        {
            "bundle": folder,
            "digest": facts["digest"],
            "function": manifest.function,
            "model": f"{model.name}/{model.version} ({model.flavor}, run {model.run_id})",
            "built by": f"Sunup {manifest.sunup}, format {manifest.format}",
            "scale": f"{manifest.scale.min} to {manifest.scale.max} workers, to zero after "
            + ("a time that is learned" if manifest.scale.idle_auto else f"{manifest.scale.idle_s:g} s"),
            "limits": f"body {size(manifest.limits.body_bytes)}, timeout {manifest.limits.timeout_s:g} s",
            **({"read plan": facts["plan"]} if facts["plan"] else {}),
            **_handler(folder, manifest),
            **_retrieval(manifest, facts),
            **_kubernetes(manifest.kubernetes),
            "example": json.dumps(manifest.example, default=str),
        }
    )
    click.echo()
    asked = {field.name for field in manifest.request}
    columns = dict.fromkeys(column for tensor in manifest.inputs for column in tensor.columns)
    rows = [["request", field.name, field.dtype] for field in manifest.request]
    rows += [["feature", name, ""] for name in columns if name not in asked]
    rows += [["response", field.name, field.dtype] for field in manifest.answers]
    show_table(["field", "name", "type"], rows)
    if (proof := read_proof(folder)) is not None:
        click.echo()
        show_table(["proof", ""], proof.table())
    click.echo()
    show_table(["file", "size "], [[name, size(count)] for name, count in facts["files"].items()])


def _handler(folder: Path, manifest: Manifest) -> dict[str, str]:
    """The function's own code: its hooks, and the packages it brought."""
    if manifest.handler is None:
        return {}
    lock = (folder / LOCK).read_text() if LOCK in manifest.files else ""
    packages = [line.split()[0] for line in lock.splitlines() if line[:1].isalnum()]
    return {"handler": ", ".join(manifest.handler.hooks), **({"packages": ", ".join(packages)} if packages else {})}
