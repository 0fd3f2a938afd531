#!/usr/bin/env python3
"""Disturbs a tiny pretraining run in many ways and compares its end with that of an undisturbed run, bit by bit.

    scripts/check/faults.py                        one round, at most two minutes
    scripts/check/faults.py --short                one round with fewer cases, at most a minute
    scripts/check/faults.py --minutes 60           random faults, each with a seed that is printed, until the time is over
    scripts/check/faults.py --only kill --seed 7   the faults whose names contain a word, with a seed that was printed

Every fault must be refused with one sentence and exit code 1, or end with the same weights and optimizer state as the
undisturbed run; after a refusal the cause is removed, and the resumed run must end with them. Anything else is wrong: another
result, a panic, an end by a signal that the script did not send, or a process that hangs (that takes more than 60 seconds; --limit
changes that for a busy machine). Prints a table of all faults and exits with 1 if anything was wrong. Faults that this machine
cannot produce are named. docs/faults.md describes what to expect.
"""

import argparse
import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tiny_run import RELEASE, TinyRun, end

NOBODY = 65534
SIGNALS = {"TERM": signal.SIGTERM, "INT": signal.SIGINT, "HUP": signal.SIGHUP}
DAMAGE = ("flipped bit", "cut", "longer", "empty", "removed", "named pipe", "directory")


class Wrong(Exception):
    """A fault had an effect that it must not have."""


class Skip(Exception):
    """This machine cannot produce a fault."""


class Faults:
    """Applies faults to the run of a directory; each method returns "refused" or "recovered"."""

    def __init__(self, tiny, draw):
        self.tiny, self.draw = tiny, draw
        begin = time.monotonic()
        self.require(tiny.run(tiny.training()), 0)
        tiny.remove("run")
        begin = time.monotonic()
        self.require(tiny.run(tiny.training()), 0)
        self.duration = time.monotonic() - begin
        self.expected = tiny.result()
        self.interrupted()
        tiny.copy("data", "data.whole")
        tiny.copy("cache/lambert/compiled", "compiled.whole")
        self.library = self.compile_library()

    def require(self, ended, code):
        if ended.code != code:
            raise Wrong(f"requires exit code {code}, got {ended.code}: {ended.output[-2000:]}")
        return ended

    def interrupted(self):
        """Stops a run after its third checkpoint, and keeps its directory as `half`."""
        for _ in range(20):
            self.tiny.remove("run")
            process = self.tiny.start(self.tiny.training())
            saved = lambda: self.tiny.path(f"run/step-{3 * self.tiny.every:08}").is_dir()
            self.tiny.wait_for(process, saved)
            process.terminate()
            if self.tiny.wait(process).code == 130:
                self.tiny.copy("run", "half")
                return
        raise Wrong("no run could be interrupted before its end")

    def compile_library(self):
        """Compiles the functions that disturb the C library; none without a compiler."""
        source, library = Path(__file__).with_name("faults_preload.c"), self.tiny.path("faults.so")
        compiler = shutil.which("cc")
        if compiler is None:
            return None
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        return library

    def reset(self, run="half"):
        """Restores data, compiled programs and the run directory: the interrupted one, or none."""
        self.tiny.copy("data.whole", "data")
        self.tiny.copy("compiled.whole", "cache/lambert/compiled")
        self.tiny.remove("run")
        if run:
            self.tiny.copy(run, "run")

    def judge(self, ended):
        """Returns "recovered" for the expected result and "refused" for an error of one sentence."""
        if ended.code == 0:
            if self.tiny.result() != self.expected:
                raise Wrong(f"another result, silently: {ended.output[-1500:]}")
            return "recovered"
        if ended.error():
            return "refused"
        what = "it hangs" if ended.code is None else f"exit code {ended.code}"
        raise Wrong(f"{what}: {ended.output[-2000:]}")

    def resumed(self, **options):
        return self.judge(self.tiny.run(self.tiny.training("--resume"), **options))

    def then_resumed(self, outcome):
        """After a refusal whose cause was removed, the resumed run must end as the undisturbed one."""
        if outcome == "refused" and self.resumed() != "recovered":
            raise Wrong(f"cannot be resumed afterwards: {self.tiny.path('output').read_text()[-1500:]}")
        return outcome

    def running(self, *more, condition=None, **options):
        """Starts or resumes a run and waits for a random moment, or for a condition."""
        process = self.tiny.start(self.tiny.training(*more), **options)
        if condition:
            self.tiny.wait_for(process, condition)
        else:
            time.sleep(self.draw.uniform(0, self.duration))
        return process

    # Kills and signals.

    def kill(self, condition=None):
        self.reset(None)
        for more in ([], ["--resume"], ["--resume"]):
            end(self.running(*more, condition=condition))
        return self.resumed()

    def kill_during_a_save(self):
        return self.kill(self.tiny.is_saving)

    def interruption(self):
        self.reset(None)
        process = self.running()
        process.send_signal(self.draw.choice(list(SIGNALS.values())))
        ended = self.tiny.wait(process)
        # Before its handlers are installed, a signal ends the process as any other.
        if ended.code not in (130, 0, *(-number for number in SIGNALS.values())):
            raise Wrong(f"exit code {ended.code}: {ended.output[-1500:]}")
        return self.resumed()

    def save_on_request(self):
        self.reset(None)
        process = self.running(condition=self.tiny.path("run/metrics.jsonl").exists)
        if process.poll() is None:
            process.send_signal(signal.SIGUSR1)
        return self.judge(self.tiny.wait(process))

    # Damaged files.

    def damage(self, path, how):
        content = path.read_bytes()
        if how in ("removed", "named pipe", "directory"):
            path.unlink()
        if how == "named pipe":
            os.mkfifo(path)
        elif how == "directory":
            path.mkdir()
        elif how == "flipped bit":
            content = bytearray(content)
            content[self.draw.randrange(len(content))] ^= 1 << self.draw.randrange(8)
            path.write_bytes(content)
        elif how == "cut":
            path.write_bytes(content[: self.draw.randrange(1, max(2, len(content)))])
        elif how == "longer":
            path.write_bytes(content + self.draw.randbytes(self.draw.randint(1, 100)))
        elif how == "empty":
            path.write_bytes(b"")

    def damaged(self, how, files):
        """Damages one of the files that a function lists, or the files of one name in several directories."""
        self.reset()
        chosen = self.draw.choice(files())
        chosen = chosen if isinstance(chosen, list) else [chosen]
        chosen = [path for path in chosen if path.stat().st_size > 0]
        for path in chosen:
            self.damage(path, how)
        names = ", ".join(str(path.relative_to(self.tiny.directory)) for path in chosen)
        try:
            return self.resumed()
        except Wrong as wrong:
            raise Wrong(f"{names}: {wrong}") from None

    def files_of(self, directory):
        return sorted(path for path in self.tiny.path(directory).rglob("*") if path.is_file())

    def newest_checkpoint(self):
        return self.files_of(self.tiny.checkpoints()[-1])

    def all_checkpoints(self):
        newest = self.tiny.checkpoints()[-1]
        return [[path.parent.parent / step / path.name for step in self.tiny.checkpoints()] for path in self.files_of(newest)]

    def logs(self):
        return [path for path in self.files_of("run") if path.parent == self.tiny.path("run") and path.stat().st_size]

    def prepared_data(self):
        return self.files_of("data")

    def compiled_programs(self):
        return self.files_of("cache/lambert/compiled")

    # Disks.

    def limited_file_size(self):
        self.reset(None)
        largest = max(path.stat().st_size for path in self.files_of("half"))
        limit = self.draw.randrange(1, largest)
        outcome = self.judge(self.tiny.run(self.tiny.training(), preexec_fn=lambda: set_limit("FSIZE", limit)))
        return self.then_resumed(outcome)

    def full_disk(self):
        self.reset(None)
        directory = self.tiny.path("run")
        directory.mkdir()
        size = sum(path.stat().st_size for path in self.files_of("half"))
        mount = ["mount", "-t", "tmpfs", "-o", f"size={8 * size}", "tmpfs", directory]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            raise Skip("a small file system requires the right to mount one")
        try:
            process = self.running(condition=self.tiny.checkpoints)
            fill(directory / "filler", self.draw.randrange(size // 2))
            outcome = self.judge(self.tiny.wait(process))
            (directory / "filler").unlink()
            return self.then_resumed(outcome)
        finally:
            end(process)
            subprocess.run(["umount", directory], check=True)

    def preloaded(self, **settings):
        if self.library is None:
            raise Skip("a slow disk and clocks require a C compiler (cc)")
        return {**self.tiny.environment, "LD_PRELOAD": str(self.library), **settings}

    def slow_disk(self):
        self.reset()
        return self.resumed(env=self.preloaded(FAULT_FSYNC_SECONDS="0.05"))

    def failing_disk(self):
        self.reset()
        environment = self.preloaded(FAULT_FSYNC_FAILS=str(self.draw.randint(1, 40)))
        return self.then_resumed(self.resumed(env=environment))

    def jumping_clock(self):
        self.reset()
        return self.resumed(env=self.preloaded(FAULT_CLOCK_SECONDS="100000000"))

    # Limits.

    def limited(self, name, limits, **options):
        self.reset()
        limit = self.draw.choice(limits)
        try:
            outcome = self.resumed(preexec_fn=lambda: set_limit(name, limit), **options)
        except Wrong as wrong:
            raise Wrong(f"limit {limit}: {wrong}") from None
        return self.then_resumed(outcome)

    def address_space(self):
        return self.limited("AS", [*range(200 << 20, 2 << 30, 1 << 20)])

    def open_files(self):
        return self.limited("NOFILE", range(5, 40))

    def stack(self):
        return self.limited("STACK", [64 << 10, 256 << 10, 1 << 20, 64 << 20])

    def processes(self):
        if os.geteuid() != 0:
            raise Skip("a limit on processes counts all of this user's; as root, the script uses the user nobody")
        identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        if self.tiny.run(self.tiny.command("devices", "--platform", "cpu"), **identity).code != 0:
            raise Skip("the user nobody cannot read the program or the plugin")
        processors = os.cpu_count()
        self.reset()
        own(self.tiny.directory, NOBODY)
        try:
            return self.limited_as_nobody(self.draw.randint(1, 8 * processors + 40), identity)
        finally:
            own(self.tiny.directory, 0)

    def limited_as_nobody(self, limit, identity):
        outcome = self.resumed(preexec_fn=lambda: set_limit("NPROC", limit), **identity)
        own(self.tiny.directory, 0)
        return self.then_resumed(outcome)

    # Files that change under a run.

    def renamed_run(self):
        self.reset(None)
        process = self.running(condition=self.tiny.checkpoints)
        run, moved = self.tiny.path("run"), self.tiny.path("moved")
        self.tiny.remove("moved")
        run.rename(moved)
        ended = self.tiny.wait(process)
        if ended.code == 0 and run.exists():
            raise Wrong(f"a second run directory was written: {ended.output[-1500:]}")
        self.tiny.remove("run")
        moved.rename(run)
        return self.then_resumed(self.judge(ended))

    def deleted_data(self):
        self.reset(None)
        process = self.running(condition=self.tiny.path("run/metrics.jsonl").exists)
        self.tiny.remove("data")
        outcome = self.judge(self.tiny.wait(process))
        self.tiny.copy("data.whole", "data")
        return self.then_resumed(outcome)

    def shortened_shard(self):
        self.reset(None)
        process = self.running(condition=self.tiny.path("run/metrics.jsonl").exists)
        shard = self.tiny.path("data/train-00000.safetensors")
        os.truncate(shard, self.draw.randrange(shard.stat().st_size))
        outcome = self.judge(self.tiny.wait(process))
        self.tiny.copy("data.whole", "data")
        return self.then_resumed(outcome)

    def second_run(self):
        self.reset()
        events = lambda: len(list(self.tiny.path("run").glob("events.*")))
        before = events()
        first = self.running("--resume", condition=lambda: events() > before)
        output = self.tiny.path("output")
        output.rename(self.tiny.path("output.first"))
        second = self.tiny.run(self.tiny.training("--resume"))
        output.with_name("output.first").rename(output)
        if second.code != 0 and "another run is using" not in (second.error() or ""):
            raise Wrong(f"the second run: {second.output[-1500:]}")
        return self.judge(self.tiny.wait(first))

    def named(self, name):
        """Returns the fault of a name; those of a short round are among them."""
        return self.all(short=False)[name]

    def all(self, short):
        """Returns the faults of a round by name, in the order of the table."""
        damages = {
            "a file of the newest checkpoint": self.newest_checkpoint,
            "a file of every checkpoint": self.all_checkpoints,
            "a file of the prepared data": self.prepared_data,
            "a log": self.logs,
            "a compiled program": self.compiled_programs,
        }
        faults = {
            "SIGKILL at three random moments": self.kill,
            "SIGKILL during three saves": self.kill_during_a_save,
            "SIGTERM, SIGINT or SIGHUP": self.interruption,
            "SIGUSR1": self.save_on_request,
        }
        for what, files in damages.items():
            # A damaged program is compiled again, which takes long.
            kinds = self.draw.sample(DAMAGE, 1 if short and what == "a compiled program" else len(DAMAGE))
            for how in kinds:
                faults[f"{what}: {how}"] = lambda how=how, files=files: self.damaged(how, files)
        return faults | {
            "limit on the size of files (ulimit -f)": self.limited_file_size,
            "full disk (a small tmpfs)": self.full_disk,
            "slow disk (each fsync takes 0.05 s)": self.slow_disk,
            "failing disk (fsync: EIO)": self.failing_disk,
            "clock that jumps by years": self.jumping_clock,
            "limit on address space (ulimit -v)": self.address_space,
            "limit on open files (ulimit -n)": self.open_files,
            "limit on the stack (ulimit -s)": self.stack,
            "limit on processes (ulimit -u)": self.processes,
            "run directory renamed while running": self.renamed_run,
            "data deleted while running": self.deleted_data,
            "shard truncated while running": self.shortened_shard,
            "second run in the same directory": self.second_run,
        }


def set_limit(name, value):
    resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def own(directory, user):
    """Gives a directory and its content to a user."""
    for path in [directory, *directory.rglob("*")]:
        if not path.is_symlink():
            os.chown(path, user, user)


def fill(path, left):
    """Writes a file until at most so many bytes of the file system are free. A run may write to it at the same time."""
    with open(path, "wb", buffering=0) as file:
        try:
            while (free := free_bytes(path.parent)) > left:
                file.write(bytes(min(free - left, 1 << 16)))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def free_bytes(directory):
    statistics = os.statvfs(directory)
    return statistics.f_bavail * statistics.f_frsize


def print_table(counts):
    width = max(map(len, [*counts, "fault"]))
    columns = ("tried", "refused", "recovered", "wrong")
    print(f"\n{'fault':{width}}" + "".join(f"{column:>11}" for column in columns))
    for name, count in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        print(f"{name:{width}}" + "".join(f"{count[column]:11,}" for column in columns))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lambert", type=Path, default=RELEASE)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--limit", type=float, default=60, metavar="SECONDS")
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    seeds = random.Random(options.seed)
    directory = Path(tempfile.mkdtemp(prefix="lambert-faults-"))
    directory.chmod(0o755)
    counts, skipped, begin = {}, {}, time.monotonic()
    try:
        draw = random.Random(options.seed)
        faults = Faults(TinyRun(options.lambert.resolve(), directory, steps=40, limit=options.limit), draw)
        names = [name for name in faults.all(options.short) if options.only in name]
        if not names:
            sys.exit(f"no fault has {options.only!r} in its name")

        def attempt(name, seed):
            """Applies a fault with the random numbers of a seed, and counts the outcome."""
            draw.seed(seed)
            try:
                outcome = faults.named(name)()
            except Skip as skip:
                skipped[name] = str(skip)
                return
            except Wrong as wrong:
                outcome = "wrong"
                print(f"WRONG: {name}: {wrong}\nto repeat it: --only {name!r} --seed {seed}\n", flush=True)
            counts.setdefault(name, Counter()).update([outcome, "tried"])
            if options.minutes:
                print(f"{time.monotonic() - begin:6.0f} s  seed {seed:10}  {outcome:9}  {name}", flush=True)

        if not options.minutes:
            for name in names:
                attempt(name, options.seed)
        while options.minutes and time.monotonic() - begin < 60 * options.minutes:
            attempt(seeds.choice(names), seeds.randrange(1 << 32))
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print_table(counts)
    for name, reason in skipped.items():
        print(f"not tried: {name}: {reason}")
    print(f"{time.monotonic() - begin:.0f} s; seed {options.seed}")
    sys.exit(any(count["wrong"] for count in counts.values()))


if __name__ == "__main__":
    main()
