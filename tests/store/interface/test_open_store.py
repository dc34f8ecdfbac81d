from pathlib import Path

import pytest
from windvane.config import Settings, load_settings
from windvane.errors import ConfigInvalid, ExtensionInvalid
from windvane.extensions import STORES
from windvane.store.files.store import Store
from windvane.store.interface import open_store
from windvane.store.repair.local_store import open_local_store
from windvane.testing.store import resumed

from tests.installed_packages import InstalledPackages, installed_packages

__all__ = ["installed_packages"]

ENGINE = "from windvane_memory_store import MemoryStore\nnot_an_engine = 1\n"


def test_the_store_of_a_home_is_its_directory(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with open_store(settings.store, tmp_path) as store:
        assert isinstance(store, Store)
        assert store.root == settings.store_dir
        assert (store.address.url, store.address.home) == ("local:", tmp_path)


def test_the_setting_is_a_flag_a_variable_and_a_line_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "windvane.toml").write_text('store = "memory:a"\n')
    environment = {"WINDVANE_STORE": "memory:b"}
    assert load_settings(home=tmp_path, environment={}).store == "memory:a"
    assert load_settings(home=tmp_path, environment=environment).store == "memory:b"
    flags = {"store": "memory:c"}
    assert load_settings(home=tmp_path, environment=environment, flags=flags).store == "memory:c"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s4://bucket", r"'s4://bucket' is not a valid store URL; it must begin with one of local:"),
        ("local:/data", "write local:"),
        ("local:?segment_bytes=1", "the store 'local:.segment_bytes=1' has no option 'segment_bytes'"),
        ("", "not a valid store URL"),
    ],
)
def test_a_url_that_is_not_valid_is_named(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(ConfigInvalid, match=said):
        open_store(url, tmp_path)
    assert not (tmp_path / "store").exists()


def test_a_package_s_engine_opens_the_stores_of_its_scheme(
    installed_packages: InstalledPackages, tmp_path: Path
) -> None:
    installed_packages.install("mem", {STORES.group: {"mem": "wv_mem:MemoryStore"}}, wv_mem=ENGINE)
    with open_store("mem:a", tmp_path) as store, open_store("mem:b", tmp_path) as other:
        resumed(store.stream_writer("t", attrs={})).close()
        assert (store.streams(), other.streams()) == (["t"], [])
        with open_store(store.address.url, store.address.home) as again:
            assert again.streams() == ["t"]


def test_a_target_of_another_kind_is_reported_with_its_package(
    installed_packages: InstalledPackages, tmp_path: Path
) -> None:
    installed_packages.install("wrong", {STORES.group: {"wrong": "wv_wrong:not_an_engine"}}, wv_wrong=ENGINE)
    with pytest.raises(ExtensionInvalid, match=r"wrong 1.0 cannot be used: .* not a subclass of StoreEngine"):
        open_store("wrong:", tmp_path)


def test_only_the_store_in_the_home_is_repaired(
    installed_packages: InstalledPackages, tmp_path: Path
) -> None:
    installed_packages.install("mem", {STORES.group: {"mem": "wv_mem:MemoryStore"}}, wv_mem=ENGINE)
    with pytest.raises(ConfigInvalid, match="only those of the store local: can be verified"):
        open_local_store("mem:a", tmp_path)
    open_local_store("local:", tmp_path).close()
