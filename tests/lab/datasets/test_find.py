"""The search for MovieLens: given, around, cached, downloaded, or none; a real server stands in for the publisher's."""

import hashlib
import io
import threading
import urllib.request
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from riverdelta.core.errors import InvalidInput
from riverdelta.lab.datasets import find
from riverdelta.lab.datasets.find import find_movielens


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def publisher(tmp_path):
    """A folder that is served, and a `fetch` that reads from it whatever is asked of grouplens.org."""
    folder = tmp_path / "published"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def fetch(url):
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/{url.rsplit('/', 1)[1]}", timeout=5) as answer:
            return answer.read()

    yield folder, fetch
    server.shutdown()
    server.server_close()
    thread.join()


def publish(folder, names, checksum=None):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name in names:
            archive.writestr(name, "userId,movieId,rating,timestamp\n")
    (folder / "ml-latest-small.zip").write_bytes(body.getvalue())
    digest = checksum or hashlib.md5(body.getvalue()).hexdigest()
    (folder / "ml-latest-small.zip.md5").write_text(f"MD5 (ml-latest-small.zip) = {digest}\n")


def test_what_is_given_comes_first(tmp_path):
    (tmp_path / "ratings.csv").touch()
    found = find_movielens(tmp_path, {"RIVERDELTA_DATA": "/nowhere"})
    assert found.folder == tmp_path
    assert "--data" in found.source


def test_what_is_given_and_holds_nothing_is_an_error_and_not_passed_over(tmp_path):
    with pytest.raises(InvalidInput, match="has no MovieLens release"):
        find_movielens(tmp_path, {})


def test_the_environments_folder_may_hold_the_release_or_be_it(tmp_path):
    release = tmp_path / "ml-latest-small"
    release.mkdir()
    (release / "ratings.csv").touch()
    for around in (tmp_path, release):
        assert find_movielens(None, {"RIVERDELTA_DATA": str(around)}).folder == release


def test_it_is_downloaded_once_and_then_cached(tmp_path, publisher):
    folder, fetch = publisher
    publish(folder, ["ml-latest-small/ratings.csv", "ml-latest-small/movies.csv"])
    first = find_movielens(None, {}, tmp_path / "cache", fetch)
    assert "downloaded" in first.source
    (folder / "ml-latest-small.zip").unlink()
    second = find_movielens(None, {}, tmp_path / "cache", fetch)
    assert (second.folder, "cached" in second.source) == (first.folder, True)


@pytest.mark.parametrize(
    ("names", "checksum"),
    [(["ml-latest-small/ratings.csv"], "0" * 32), (["../escaped.csv", "ml-latest-small/ratings.csv"], None)],
    ids=["wrong checksum", "a name that leaves its folder"],
)
def test_a_bad_download_is_not_used_and_leaves_nothing(tmp_path, publisher, names, checksum):
    folder, fetch = publisher
    publish(folder, names, checksum)
    found = find_movielens(None, {}, tmp_path / "cache", fetch)
    assert found.folder is None
    assert "simulator" in found.source
    assert not list((tmp_path / "cache").glob("**/*"))
    assert not (tmp_path / "escaped.csv").exists()


def test_without_a_network_the_simulator_is_named(tmp_path):
    def fetch(url):
        raise OSError("no network")

    assert find_movielens(None, {}, tmp_path, fetch) == find.Found(
        None, "the built-in simulator (MovieLens cannot be downloaded: no network)"
    )
