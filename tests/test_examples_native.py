"""Programs in C, C++, Java and Python, built against a bundle, print the same text from the same artifact and level."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bundles import CACHE, ROOT, make_bundle
from device_artifacts import edge_run, write_tiny

import edgesdk
from edgesdk.targets import load_profile
from edgesdk.targets.toolchain import find_program

pytestmark = pytest.mark.slow
EXAMPLES = ROOT / "examples"
PROMPT = "Hello"
LEVEL = 1
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
PYTHON = """
import sys, edgesdk
path, level, prompt = sys.argv[1:]
print(edgesdk.load(path, level=int(level)).generate(prompt, max_tokens=24))
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("sdk") / "tiny.edge")


@pytest.fixture(scope="module")
def bundle(artifact):
    return make_bundle(artifact, f"linux-{platform.machine()}", artifact.parent)


@pytest.fixture(scope="module")
def expected(artifact):
    text = edgesdk.load(artifact, level=LEVEL).generate(PROMPT, max_tokens=24)
    assert len(text) > 5
    return text + "\n"


def need(program: str, package: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program} (apt-get install {package})")
    return found


def run(*command: object, **environment: object) -> str:
    given = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    result = subprocess.run([str(part) for part in command], capture_output=True, timeout=300, env=given)
    assert result.returncode == 0, result.stderr.decode() + result.stdout.decode()
    return result.stdout.decode()


def pkg_config(bundle: Path, *arguments: str) -> list[str]:
    program = need("pkg-config", "pkg-config")
    return run(program, *arguments, "edge", PKG_CONFIG_PATH=bundle / "lib" / "pkgconfig").split()


def test_c(artifact, bundle, expected, tmp_path):
    flags = pkg_config(bundle, "--cflags", "--libs")
    program = tmp_path / "hello"
    run(need("cc", "gcc"), *STRICT, EXAMPLES / "c_api" / "hello.c", *flags, "-o", program)
    assert run(program, artifact, LEVEL, PROMPT, LD_LIBRARY_PATH=bundle / "lib") == expected
    result = subprocess.run(
        [str(program), str(artifact), "9", PROMPT],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_LIBRARY_PATH": str(bundle / "lib")},
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: level 9")


def test_c_with_the_static_library(artifact, bundle, expected, tmp_path):
    libraries = [flag for flag in pkg_config(bundle, "--static", "--libs-only-l") if flag != "-ledge"]
    program = tmp_path / "hello"
    source = EXAMPLES / "c_api" / "hello.c"
    include, library = f"-I{bundle / 'include'}", bundle / "lib" / "libedge.a"
    run(need("cc", "gcc"), *STRICT, source, include, library, *libraries, "-pthread", "-o", program)
    assert run(program, artifact, LEVEL, PROMPT) == expected


def test_cpp(artifact, bundle, expected, tmp_path):
    cmake, ninja = find_program("cmake"), find_program("ninja")
    configure = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", f"-DCMAKE_PREFIX_PATH={bundle}"]
    run(cmake, "-S", EXAMPLES / "cpp_api", "-B", tmp_path, *configure, "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror")
    run(cmake, "--build", tmp_path)
    assert run(tmp_path / "hello", artifact, LEVEL, PROMPT) == expected


def test_python(artifact, expected):
    assert run(sys.executable, "-c", PYTHON, artifact, LEVEL, PROMPT) == expected
    assert edge_run("generate", artifact, "--level", LEVEL, "--prompt", PROMPT, "--max-tokens", 24).stdout == expected


@pytest.fixture(scope="module")
def java(bundle, tmp_path_factory):
    """A folder with libedge_jni.so and the classes of the binding, the example and the checks of tests/device."""
    javac = need("javac", "default-jdk-headless")
    need("java", "default-jdk-headless")
    folder = tmp_path_factory.mktemp("java")
    cmake, ninja = find_program("cmake"), find_program("ninja")
    home = Path(javac).resolve().parents[1]
    configure = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", f"-DCMAKE_PREFIX_PATH={bundle}"]
    run(cmake, "-S", bundle / "java", "-B", folder, *configure, "-DCMAKE_C_FLAGS=-Werror", JAVA_HOME=home)
    run(cmake, "--build", folder)
    sources = sorted((bundle / "java" / "src").rglob("*.java"))
    checks = ROOT / "tests" / "device" / "BindingChecks.java"
    options = ["-Xlint:all,-options", "-Werror", "--release", "11"]
    run(javac, *options, "-d", folder, *sources, EXAMPLES / "java" / "Hello.java", checks)
    return folder


def run_java(folder: Path, bundle: Path, *arguments: object) -> str:
    checks = ["-Xcheck:jni", "-XX:+AllowUserSignalHandlers"]  # the engine handles SIGBUS
    options = [*checks, f"-Djava.library.path={folder}", "-cp", folder]
    environment = {"LD_LIBRARY_PATH": bundle / "lib", "EDGE_OPENCL_DEVICE": "no such name"}
    return run(need("java", "default-jdk-headless"), *options, *arguments, **environment)


def test_java(artifact, bundle, java, expected):
    assert run_java(java, bundle, "Hello", artifact, LEVEL, PROMPT) == expected


def test_the_java_binding(artifact, bundle, java):
    """tests/device/BindingChecks.java: errors, backends, texts, listeners, cancelling, closing."""
    output = run_java(java, bundle, "BindingChecks", artifact)
    assert "WARNING in native method" not in output
    assert output.splitlines()[-1] == "all checks held"


THROWS = r"""
#include <edge.h>
#include <cstdio>
#include <cstring>
#include <stdexcept>
static int32_t fail(const char*, size_t, void*) { throw std::runtime_error("no more paper"); }
int main(int, char** argv) {
    edge_model* model = nullptr;
    edge_session* session = nullptr;
    if (edge_model_load(argv[1], nullptr, &model) || edge_session_open(model, &session)) return 1;
    const int32_t token = 72;
    for (int i = 0; i < 2; ++i) {  // the session can be used again
        const edge_status status = edge_session_generate(session, &token, 1, 8, nullptr, 0, fail, nullptr, nullptr);
        if (status != EDGE_CALLBACK_FAILED) return 2;
        if (!std::strstr(edge_last_error(), "the callback threw an exception: no more paper\nhint: ")) return 3;
        edge_session_reset(session);
    }
    edge_model_close(model);  // the session outlives the handle
    if (edge_session_generate(session, &token, 1, 8, nullptr, 0, nullptr, nullptr, nullptr) != EDGE_OK) return 4;
    edge_session_close(session);
    return 0;
}
"""


@pytest.mark.parametrize("library", ["libedge.a", "libedge.so"])
def test_an_exception_of_a_callback_ends_in_the_engine(library, artifact, bundle, tmp_path):
    """Caught where it is the caller's fault, also in the library that has a C++ runtime of its own."""
    (tmp_path / "throws.cpp").write_text(THROWS)
    include, built = f"-I{bundle / 'include'}", bundle / "lib" / library
    program = tmp_path / "throws"
    run(need("c++", "g++"), "-std=c++17", tmp_path / "throws.cpp", include, built, "-pthread", "-o", program)
    run(program, artifact, LD_LIBRARY_PATH=bundle / "lib")


def test_the_android_project_builds(artifact, tmp_path):
    """The whole Gradle build, where there is an NDK."""
    if not os.environ.get("ANDROID_NDK_HOME"):
        pytest.skip("no Android NDK: ANDROID_NDK_HOME is not set")
    gradle = need("gradle", "gradle")
    arguments = ["bundle", artifact, "--targets", "android", "-o", tmp_path]
    run(sys.executable, "-m", "edgesdk", *arguments)
    project = shutil.copytree(EXAMPLES / "android", tmp_path / "project")
    run(gradle, "-p", project, f"-PedgeBundle={tmp_path / 'android'}", ":edge:assembleRelease")
    assert list(project.rglob("edge-release.aar"))


def test_the_android_project_is_for_the_machines_of_the_profile():
    script = (EXAMPLES / "android" / "edge" / "build.gradle.kts").read_text("utf-8")
    profile = load_profile("android")
    assert re.findall(r"minSdk = (\d+)", script) == [str(profile.android_api)]
    assert re.findall(r'abiFilters \+= "(.*)"', script) == [profile.android_abi]
    assert [path for path in re.findall(r"\$bundle/([\w/.]+)", script) if path.startswith("java")] == [
        "java/CMakeLists.txt",
        "java/src",
    ]
    assert (ROOT / "device" / "java" / "CMakeLists.txt").is_file()
    assert (ROOT / "device" / "java" / "src").is_dir()


def test_jetson_over_a_stand_in_for_ssh(artifact, bundle, expected, tmp_path):
    """The script's own steps; `ssh` and `scp` work in a folder of this machine, where this machine's bundle runs."""
    home, programs = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    (programs / "ssh").write_text(f'#!/bin/sh\ncd {home} && shift && exec sh -c "$*"\n')
    (programs / "scp").write_text(
        f'#!/bin/sh\nshift\nfor last; do :; done\nto={home}/"${{last#*:}}"\n'
        'while [ $# -gt 1 ]; do cp "$1" "$to"; shift; done\n'
    )
    (programs / "edgesdk").write_text(f'#!/bin/sh\nexec {sys.executable} -m edgesdk "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    output = run(
        EXAMPLES / "jetson" / "run.sh",
        artifact,
        "me@board",
        PROMPT,
        PATH=f"{programs}:{os.environ['PATH']}",
        TARGET=f"linux-{platform.machine()}",
        OUT=tmp_path / "out",
        EDGESDK_CACHE=CACHE,
    )
    full = edgesdk.load(artifact, level=2).generate(PROMPT, max_tokens=24)
    assert output.endswith(full + "\n")
    assert sorted(path.name for path in (home / "edgesdk-example").iterdir()) == ["edge-run", "tiny.edge"]
