"""What is installed is what is in the folders: setuptools drops a forgotten package without a word."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
REMAPPED = {folder: package for package, folder in SETUPTOOLS["package-dir"].items()}


def packages_in_folders():
    """Import name of every folder below the mapped ones that has an __init__.py."""
    for folder, package in REMAPPED.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            yield ".".join([package, *init.parent.relative_to(ROOT / folder).parts])


def folder_of(package):
    """The folder of an import name, through the longest prefix that is mapped."""
    mapped = max((p for p in SETUPTOOLS["package-dir"] if f"{package}.".startswith(f"{p}.")), key=len)
    rest = package[len(mapped) + 1 :].split(".") if package != mapped else []
    return ROOT.joinpath(SETUPTOOLS["package-dir"][mapped], *rest)


def test_every_folder_is_a_listed_package():
    assert sorted(packages_in_folders()) == sorted(SETUPTOOLS["packages"])


def test_every_module_is_in_a_package():
    """A folder of modules that lacks its __init__.py would not be installed either."""
    for folder in REMAPPED:
        for module in (ROOT / folder).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), f"{module.parent} has modules but no __init__.py"


def test_every_data_file_is_shipped():
    """Whatever is not Python and not hidden in the package folders matches a pattern of package-data."""
    shipped = set()
    for package, patterns in SETUPTOOLS["package-data"].items():
        for pattern in patterns:
            shipped |= set(folder_of(package).glob(pattern))
    listed = subprocess.run(
        ["git", "ls-files", "--", *REMAPPED], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    data = {ROOT / name for name in listed if not name.endswith(".py")}
    assert data <= shipped, f"add to package-data: {sorted(str(p.relative_to(ROOT)) for p in data - shipped)}"


def test_the_links_of_the_type_checker_lead_to_the_folders():
    for folder, package in REMAPPED.items():
        if package != "pullback":
            link = ROOT / ".typing" / Path(*package.split("."))
            assert link.is_symlink()
            assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("package", SETUPTOOLS["packages"])
def test_every_package_says_what_it_is(package):
    text = (folder_of(package) / "__init__.py").read_text()
    assert text.startswith('"""')
    assert len(text.split('"""')[1].strip()) > 20


def test_no_folder_is_imported_by_its_own_name():
    """``import rtl`` works by accident in the repository's root and makes a second copy of every class."""
    for folder in (*REMAPPED, "tests", "bench"):
        for module in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(module.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module]
                wrong = [n for n in names if n.split(".")[0] in REMAPPED and n.split(".")[0] != "pullback"]
                assert not wrong, f"{module}: import pullback.{wrong[0]}, not {wrong[0]}"


def test_generating_needs_no_framework():
    """The command line, the generator and the golden models import neither torch nor JAX nor matplotlib."""
    program = (
        "import sys, pullback.gen.verilog, pullback.sim.golden, pullback.rtl.isp;"
        "print([m for m in ('torch', 'jax', 'matplotlib', 'rawpy', 'cocotb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_every_dependency_is_bounded():
    wanted = list(PROJECT["project"]["dependencies"])
    for extra in PROJECT["project"]["optional-dependencies"].values():
        wanted += extra
    unbounded = [w for w in wanted if not any(sign in w for sign in ("~=", "<", "=="))]
    # Dated versions: there is no major number to stop at.
    assert [w.split(">=")[0] for w in unbounded] == ["furo"]
