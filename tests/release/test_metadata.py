"""What package indexes show of every distribution: its licence, its addresses, and what it requires."""

from pathlib import Path

import pytest

from tests.release.projects import ROOT, Project, needed_projects, read_projects

PROJECTS = read_projects()
CORE, *PLUGINS = PROJECTS
every_project = pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)


@every_project
def test_a_distribution_has_the_licence_of_the_repository(project: Project) -> None:
    assert (project.metadata["license"], project.metadata["license_files"]) == ("MIT", "LICENSE")
    assert (project.folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@every_project
def test_a_distribution_has_addresses_in_the_same_repository(project: Project) -> None:
    repository = CORE.urls["Source"]
    assert list(project.urls) == ["Documentation", "Source", "Changelog", "Issues"]
    for url in project.urls.values():
        assert url == repository or url.startswith(f"{repository}/")


@every_project
def test_the_files_and_folders_of_a_distribution_s_addresses_exist(project: Project) -> None:
    for url in project.urls.values():
        _, branch, path = url.partition("/main/")
        if branch:
            assert (ROOT / path).exists(), url


@every_project
def test_a_distribution_has_the_version_of_jimsapi(project: Project) -> None:
    assert project.version == CORE.version


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_a_plugin_is_an_extra_of_jimsapi(plugin: Project) -> None:
    [requirement] = CORE.extras[plugin.name.removeprefix("jimsapi-")]
    assert requirement.name == plugin.name
    assert requirement.specifier.contains(plugin.version)


@pytest.mark.parametrize(("folder", "requirement"), [(".", "uvicorn"), ("plugins/jimsapi-otel", "opentelemetry-sdk")])
def test_a_package_of_which_internals_are_used_has_an_upper_bound(folder: str, requirement: str) -> None:
    [project] = [project for project in PROJECTS if project.folder == ROOT / folder]
    [found] = [one for one in project.requirements if one.name == requirement]
    assert any(specifier.operator == "<" for specifier in found.specifier)


def test_the_requirements_of_a_project_include_those_of_the_projects_that_it_requires() -> None:
    def project(name: str, *requirements: str) -> Project:
        return Project(Path(), {"name": name}, {"install_requires": "\n".join(requirements)}, {})

    core, files, store = project("jimsapi"), project("jimsapi-files", "jimsapi"), project("x", "Jimsapi_Files", "httpx")
    assert needed_projects(store, [core, files, store]) == [store, files, core]
    assert needed_projects(core, [core, files, store]) == [core]
