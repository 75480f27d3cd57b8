"""Files appear whole or not at all, where they were meant to; what cannot be written or read is refused with one
line."""

import io
import os
import socket
import stat
import subprocess
import sys
import threading
import tracemalloc
import zipfile

import numpy as np
import pytest

from nnac import files
from nnac.arrays import ArraysError, read_arrays
from nnac.cli import main
from nnac.files import FileError, atomic, read, read_text

POLICY = "specs/rnnt_int8.nnac"


def write(path, text="new"):
    with atomic(path, "w") as out:
        out.write(text)


def no_rests(folder):
    return not [p for p in folder.iterdir() if p.name.endswith(".tmp")]


def test_a_failure_leaves_the_old_content_and_no_rest(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path, "w") as out:
        out.write("half")
        raise RuntimeError
    assert path.read_text() == "old" and no_rests(tmp_path)


def test_a_symbolic_link_stays_one_and_its_target_is_written(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"


def test_a_link_to_nothing_makes_its_target(tmp_path):
    (tmp_path / "link").symlink_to("sub/target")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "sub/target").read_text() == "new"


def test_all_names_of_a_file_see_the_new_content(tmp_path):
    (tmp_path / "a").write_text("older and longer")
    os.link(tmp_path / "a", tmp_path / "b")
    write(tmp_path / "a")
    assert (tmp_path / "b").read_text() == "new" and (tmp_path / "a").stat().st_nlink == 2


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o664])
def test_the_mode_of_a_file_is_kept(tmp_path, mode):
    (tmp_path / "x").write_text("old")
    (tmp_path / "x").chmod(mode)
    write(tmp_path / "x")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0, 0o666)])
def test_the_umask_decides_on_new_files(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write(tmp_path / "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


def test_a_read_only_file_is_refused_also_for_root(tmp_path):
    (tmp_path / "x").write_text("old")
    (tmp_path / "x").chmod(0o444)
    with pytest.raises(FileError, match="read-only"):
        write(tmp_path / "x")
    assert (tmp_path / "x").read_text() == "old"


@pytest.mark.parametrize("name", ["", "a\0b", ".", "folder", "folder/", "no/", "loop", "file/x"])
def test_names_that_are_no_files_are_refused(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FileError):
        write(name)
    with pytest.raises(FileError):
        read(name)
    assert sorted(tmp_path.iterdir()) == before


def test_devices_are_written_to_and_stay_devices():
    write("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_pipe_is_written_to_where_somebody_reads(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):            # nobody does: an error, not a wait
        write(tmp_path / "pipe")
    heard = []
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    while True:
        try:
            write(tmp_path / "pipe", "x" * 300_000)
            break
        except OSError:
            pass
    reader.join()
    assert heard == [b"x" * 300_000] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("s")
        with pytest.raises(FileError, match="socket"):
            write("s")
        with pytest.raises(FileError, match="socket"):
            read("s")


def test_a_file_larger_than_memory_is_refused_with_its_size(tmp_path):
    with open(tmp_path / "x", "wb") as out:
        out.truncate(1 << 40)
    with pytest.raises(FileError, match="1,099,511,627,776 bytes"):
        read(tmp_path / "x")


def test_an_endless_device_is_refused(monkeypatch):
    monkeypatch.setattr(files, "ENDLESS", 1 << 20)
    with pytest.raises(FileError, match="more than"):
        read("/dev/zero")


def test_a_pipe_into_which_nobody_writes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PIPE_WAIT_S", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="nobody writes"):
        read(tmp_path / "pipe")


def test_text_that_is_not_utf8_names_its_line(tmp_path):
    (tmp_path / "x").write_bytes(b"one\ntwo\nthr\xffee\n")
    with pytest.raises(FileError, match=r"x:3: not text in UTF-8 \(byte 11 is 0xff\)"):
        read_text(tmp_path / "x")


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path):
    with pytest.raises(OSError) as error, atomic(tmp_path / "x") as out:
        os.write(os.open("/dev/full", os.O_WRONLY), b"x") if out else None
    assert error.value.filename == str(tmp_path / "x") and no_rests(tmp_path)


# ---------------------------------------------------------------------------------------------- outputs that are inputs

PAIRS = [["compile", "{in}", "--out", "{out}"], ["asm", "{in}", "--out", "{out}"],
         ["profile", "{in}", "--trace", "{out}"],
         ["profile", "{in}", "--picture", "{out}"], ["asm", "x.s", "--target", "{in}", "--out", "{out}"],
         ["train", "{in}", "--float", "f", "--corpus", "c", "--out", "{out}"],
         ["train", "p", "--float", "{in}", "--corpus", "c", "--out", "{out}"],
         ["train", "p", "--float", "{in}", "--corpus", "c", "--out", "o", "--job", "{out}"],
         ["sweep", "{in}", "--out", "{out}"], ["sweep", "e", "--float", "a={in}", "--corpus", "c", "--out", "{out}"]]


@pytest.mark.parametrize("words", PAIRS, ids=lambda w: " ".join(w))
@pytest.mark.parametrize("how", ["same", "dotted", "link", "hard link", "absolute"])
def test_no_output_is_an_input(tmp_path, monkeypatch, capsys, words, how):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_text("precious")
    out = {"same": "in", "dotted": "./../" + tmp_path.name + "/in", "link": "link", "hard link": "hard",
           "absolute": str(tmp_path / "in")}[how]
    if how == "link":
        (tmp_path / "link").symlink_to("in")
    if how == "hard link":
        os.link("in", "hard")
    assert main([w.format(**{"in": "in", "out": out}) for w in words]) == 2
    assert "which is read" in capsys.readouterr().err
    assert (tmp_path / "in").read_text() == "precious"


MISSING = """lint {} | fmt {} | explain {} | show {} | diff {} {} | run {} --audio {} | compile {} --out o | profile {}
             disasm {} | asm {} --out o | compare {} --audio {} | latency {} --manifest {} | sweep {} | debug {}
             challenge --images {} | train {} --float f --corpus c --out o | baseline --text {} --out o
             pack {} --out o"""


@pytest.mark.parametrize("words", [w.strip() for line in MISSING.split("\n") for w in line.split("|")])
def test_a_missing_file_is_one_status_and_the_same_words_in_every_command(capsys, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    assert main(words.format(*["gone/x.nnac"] * 2).split()) == 1
    assert "gone/x.nnac: no such file\n" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["compile {} --out o", "pack {} --out o", "run {} --audio x.wav", "show {}",
                                   "disasm {}", "profile {}", "compare {} --audio x.wav", "lint {}", "debug {}"])
def test_a_pipe_into_which_nobody_writes_is_waited_for_by_no_command(tmp_path, monkeypatch, capsys, words):
    """A checkpoint is mapped, and opening a pipe for that waited for ever."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "PIPE_WAIT_S", 0.05)
    os.mkfifo("pipe")
    late: list[int] = []                                               # a hang ends after all, and is a failure
    writer = threading.Timer(90, lambda: late.append(os.open("pipe", os.O_RDWR | os.O_NONBLOCK)))
    writer.start()
    try:
        assert main(words.format("pipe").split()) in (1, 2)
    finally:
        writer.cancel()
    assert "pipe: " in capsys.readouterr().err and not late


def test_what_is_written_beside_an_output_is_no_input_either(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "o.part").write_text("precious")
    assert main(["train", "p", "--float", "o.part", "--corpus", "c", "--out", "o"]) == 2
    assert "o.part" in capsys.readouterr().err


def test_an_imported_policy_is_an_input(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.nnac").write_text("policy base { }\n")
    (tmp_path / "p.nnac").write_text('import "base.nnac"\npolicy p extends base { }\n')
    assert main(["train", "p.nnac", "--float", "f", "--corpus", "c", "--out", "base.nnac"]) == 2
    assert "base.nnac" in capsys.readouterr().err


def test_a_file_of_the_corpus_is_an_input(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/train.json").write_text("{}")
    assert main(["baseline", "--corpus", "corpus", "--out", "o", "--job", "corpus/train.json"]) == 2
    assert "of the corpus" in capsys.readouterr().err


def test_two_outputs_are_two_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["profile", "p.nnp", "--trace", "x", "--picture", "./x"]) == 2
    assert "--trace and --picture would both write" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["lint", ""], ["fmt", ""], ["explain", ""], ["compile", "", "--out", "x"],
                                   ["compile", "x", "--out", ""],
                                   ["corpus", "--out", ""], ["run", "", "--audio", "x"], ["sweep", ""],
                                   ["diff", "", ""], ["disasm", ""]],
                         ids=lambda w: " ".join(w))
def test_an_empty_name_is_misuse(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2 and "not an empty one" in capsys.readouterr().err


def test_a_folder_without_policies_is_a_problem(tmp_path, capsys):
    assert main(["lint", str(tmp_path)]) == 1 and main(["fmt", str(tmp_path)]) == 1
    assert "no .nnac file" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["fmt"], ["lint", "--fix"]], ids=" ".join)
def test_a_linked_policy_is_mended_where_it_lies(tmp_path, command, capsys):
    real = tmp_path / "real.nnac"
    real.write_text('import "targets/edge.nnac"\npolicy p{model rnnt(size="small")\ntarget edge\nlayers ** { wieghts '
                    'int8 }}\n')
    real.chmod(0o640)
    (tmp_path / "link.nnac").symlink_to("real.nnac")
    main([*command, str(tmp_path / "link.nnac")])
    assert (tmp_path / "link.nnac").is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o640
    assert "wieghts" not in real.read_text() if "--fix" in command else "policy p {" in real.read_text()


# ------------------------------------------------------------------------------------------------ the process

def nnac(*words, shell="", **more):
    command = [sys.executable, "-m", "nnac", *words]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, **more)


@pytest.mark.parametrize("shell", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_trouble(shell):
    done = nnac("lint", POLICY, shell=shell)
    assert done.returncode == 0 and "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["isa"], ["lint", POLICY], ["explain", "--settings"]], ids=" ".join)
def test_a_full_output_is_one_line(words):
    done = nnac(*words, shell="> /dev/full")
    assert done.returncode != 0 and done.stderr.count("\n") == 1 and "No space left" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16", "cp437"])
def test_what_an_encoding_lacks_is_written_as_an_escape(tmp_path, encoding):
    (tmp_path / "a.nnac").write_text('import "a.nnac"\npolicy p { }\n')
    done = nnac("lint", str(tmp_path / "a.nnac"), env=os.environ | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("form", ["text", "json", "sarif"])
def test_a_file_name_that_is_no_text_is_shown(tmp_path, form):
    path = os.fsencode(tmp_path) + b"/\xff.nnac"
    with open(path, "w") as out:
        out.write("policy p { wieghts }\n")
    done = subprocess.run([sys.executable, "-m", "nnac", "lint", "--format", form, path], capture_output=True,
                          timeout=60)
    assert done.returncode == 1 and b"Traceback" not in done.stderr and done.stdout


@pytest.mark.parametrize("value", ["5 } policy q { let z = 2", "5\nlet y = 3", "5 }", "import \"x\""])
def test_a_value_on_the_command_line_is_one_value(tmp_path, value, capsys):
    (tmp_path / "p.nnac").write_text("policy p { let bits = 4\nlayers ** { weights int(bits) } }\n")
    assert main(["lint", str(tmp_path / "p.nnac"), "-D", f"bits={value}"]) == 1
    assert "is not a value" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["corpus", "--out", "x", "--seed", "9" * 5000],
                                   ["corpus", "--out", "x", "--seed", "-1"],
                                   ["corpus", "--out", "x", "--processes", "1000000"],
                                   ["baseline", "--corpus", "c", "--out", "x", "--cells", "10" * 9],
                                   ["train", "p", "--float", "f", "--corpus", "c", "--out", "o", "--learning-rate",
                                    "1e300"],
                                   ["train", "p", "--float", "f", "--corpus", "c", "--out", "o", "--learning-rate",
                                    "nan"],
                                   ["run", "p", "--audio", "a", "--batch", "1e3"]], ids=lambda w: " ".join(w)[-40:])
def test_numbers_beyond_sense_are_misuse(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2 and "takes a" in capsys.readouterr().err


def test_a_long_chain_of_extends_takes_time_in_proportion():
    import time

    from nnac.language.check import check_text

    def seconds(n):
        head = ('import "targets/edge.nnac"\npolicy p0 { model rnnt(size="small")\n target edge\n'
                ' layers ** { weights int8 } }\n')
        text = head + "".join(f"policy p{i} extends p{i - 1} "
                              f"{{ layers encoder.lstm[{i % 3}].input {{ weights int{4 + i % 4} }} }}\n"
                              for i in range(1, n))
        begun = time.process_time()
        assert check_text(text).errors == 0
        return time.process_time() - begun

    seconds(2)
    assert seconds(100) < 1.5                          # deeper ones are refused (test_language_growth.py)


def test_a_return_without_a_line_feed_is_said(tmp_path, capsys):
    (tmp_path / "p.nnac").write_bytes(b"# a comment\rpolicy p { }\r")
    assert main(["lint", str(tmp_path / "p.nnac")]) == 1
    assert "carriage return" in capsys.readouterr().out


def test_an_import_shows_nothing_of_files_that_are_no_policies(tmp_path, capsys):
    (tmp_path / "secret").write_text("password\nhunter2\n")
    (tmp_path / "secret.nnac").symlink_to("secret")
    for name in ("secret", "secret.nnac"):
        (tmp_path / "p.nnac").write_text(f'import "{name}"\npolicy p {{ }}\n')
        assert main(["lint", str(tmp_path / "p.nnac")]) == 1
        assert "hunter2" not in capsys.readouterr().out


@pytest.mark.parametrize("words", [["isa"], ["isa", "MVM"], ["lint", "--explain", "all"],
                                   ["lint", "--explain", "syntax"],
                                   ["explain", "--methods"]], ids=" ".join)
def test_the_manual_has_its_words_without_docstrings(words):
    kept, dropped = (subprocess.run([sys.executable, *flags, "-m", "nnac", *words], capture_output=True, text=True,
                                    timeout=120)
                     for flags in ([], ["-OO"]))
    assert kept.returncode == dropped.returncode == 0 and kept.stdout == dropped.stdout


@pytest.mark.parametrize(("line", "words"), [("cell int16 fraction(0)", "at least 1"),
                                             ("weights gq(4, anneal=linear(0 -> 300))", "above 0"),
                                             ("weights gq(4, anneal=exponential(-1 -> 300))", "above 0"),
                                             ("weights s8bqat(4)", "lloyd_max(4)"),
                                             ("weights codebook(values=[1])", "different numbers"),
                                             ("weights codebook(values=3)", "list of numbers")])
def test_what_no_training_could_do_is_refused_by_lint(tmp_path, capsys, line, words):
    (tmp_path / "p.nnac").write_text('import "targets/edge.nnac"\npolicy p { model rnnt(size="small")\n target edge\n'
                                     f" layers ** {{ weights int8 }}\n layers "
                                     f"encoder.lstm[0]{'' if 'cell' in line else '.input'} {{ {line} }} }}\n")
    assert main(["lint", str(tmp_path / "p.nnac")]) == 1
    assert words in capsys.readouterr().out


def test_named_codebooks_lint(tmp_path):
    (tmp_path / "p.nnac").write_text('import "targets/edge.nnac"\npolicy p { model rnnt(size="small")\n target edge\n '
                                     'layers ** { weights nf4 }\n'
                                     " layers encoder.lstm[0].input { weights e2m1 per_group(32) }\n"
                                     " layers encoder.lstm[1].input { weights codebook(values=[-1, 0, 1/3, 2]) } }\n")
    assert main(["lint", str(tmp_path / "p.nnac")]) == 0


def test_kernels_go_uncached_where_there_is_no_place_for_a_cache(monkeypatch):
    numba = pytest.importorskip("numba")
    from nnac.emulator import jit

    def njit(**options):
        def of(function):
            if options.get("cache"):
                raise RuntimeError("cannot cache function: no locator available")
            return lambda *a: function(*a)
        return of

    monkeypatch.setattr(numba, "njit", njit)
    assert jit._found()(cache=True, nogil=True)(lambda x: x + 1)(2) == 3


def test_a_user_without_a_home_has_no_native_library_and_no_traceback(monkeypatch):
    from pathlib import Path

    from nnac.train import native

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(OSError, match="home"):
        native._cache_directory()


def test_a_read_only_home_has_the_native_library_all_the_same(monkeypatch, tmp_path):
    from nnac.train import native

    if native.kind() is None or native.library() is None:
        pytest.skip("no C compiler, or no processor for the native library")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(native, "_cache_directory", lambda: tmp_path / "file" / "nnac")
    made = native._compiled(native.kind())
    assert made is not None and made.stat().st_size > 1000


# ------------------------------------------------------------------------------------------------ logs

def test_a_log_is_added_to_under_the_rules_of_files(tmp_path):
    old = os.umask(0o027)
    try:
        with files.append(tmp_path / "a" / "log") as file:
            file.write(b"1")
    finally:
        os.umask(old)
    assert (tmp_path / "a" / "log").stat().st_mode & 0o777 == 0o640
    (tmp_path / "link").symlink_to(tmp_path / "a" / "log")
    with files.append(tmp_path / "link") as file:
        file.write(b"2")
    assert (tmp_path / "a" / "log").read_bytes() == b"12" and (tmp_path / "link").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "log").write_bytes(b"")
    (tmp_path / "log").chmod(0o444)
    for name, words in (("pipe", "is a pipe"), ("a", "is a folder"), ("log", "read-only"), ("", "empty name")):
        with pytest.raises(files.FileError, match=words):
            files.append(str(tmp_path / name) if name else "")


# ------------------------------------------------------------------------------------------------ arrays

def npy(shape, descr="<f4", body=bytes(64)):
    """A .npy whose header says what it likes."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, dict(descr=descr, fortran_order=False, shape=shape))
    return out.getvalue() + body


def npz(**members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return out.getvalue()


ABSURD_ARRAYS = {
    "terabytes": (npy((10**12,)), r"promises 4,000,000,000,000 bytes, 64 are there"),
    "more than a word counts": (npy((10**30,)), "promises"), "a negative size": (npy((-4,)), "a shape of"),
    "nothing of a number of bytes": (npy((10**30, 0)), "no file of arrays"),
    "cut short": (npy((17,)), "promises 68 bytes"), "objects": (npy((4,), "|O"), "objects"),
    "text": (b"hello", "no file of arrays"), "nothing": (b"", "no file of arrays"),
    "the version of tomorrow": (b"\x93NUMPY\x09\x00", "version 9.0"),
    "a broken archive": (npz(x=npy((4,)))[:40], "no file of arrays"),
    "an archive of another thing": (npz(x=b"hello"), "no file of arrays"),
    "terabytes in an archive": (npz(x=npy((10**12,))), "promises"),
}


@pytest.mark.parametrize("what", ABSURD_ARRAYS)
def test_sizes_of_arrays_are_looked_at_before_there_is_room_for_them(tmp_path, what):
    data, why = ABSURD_ARRAYS[what]
    (tmp_path / "x").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ArraysError, match=why):
        read_arrays(tmp_path / "x")
    assert tracemalloc.get_traced_memory()[1] < 16e6
    tracemalloc.stop()


def test_an_archive_that_unpacks_to_more_than_there_is_room_for_is_refused_with_the_number(tmp_path, monkeypatch):
    monkeypatch.setattr("nnac.arrays.LIMIT", 10_000)
    (tmp_path / "x.npz").write_bytes(npz(x=npy((4096,), "|i1", bytes(4096)), y=npy((9000,), "|i1", bytes(9000))))
    assert (tmp_path / "x.npz").stat().st_size < 2000
    with pytest.raises(ArraysError, match=r"its arrays take 13,352 bytes: at most 10,000 are read"):
        read_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)),
                                   np.zeros((0, 3)), np.array(5), np.array(["a", "bc"]), np.arange(3, dtype=">i4")],
                         ids=lambda a: f"{a.dtype.str}{list(a.shape)}")
def test_arrays_are_read_as_numpy_wrote_them(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    np.savez_compressed(tmp_path / "x.npz", a=array, b=array)
    one, several = read_arrays(tmp_path / "x.npy"), read_arrays(tmp_path / "x.npz")
    assert set(several) == {"a", "b"}
    for found in (one, *several.values()):
        assert np.array_equal(found, array) and found.dtype == array.dtype and found.flags.writeable
