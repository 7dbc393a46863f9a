"""QEMU's own way to move a vm with its disk, for bench/disk.py's peers: blockdev-mirror to an export of the target's QEMU, then
pre-copy, as libvirt's --copy-storage-all does; the job ends while the vCPUs stand.

In the copy mode `background`, which is the default, what the guest writes goes by a bitmap, later. The job is ready at a moment
when nothing is dirty and nothing under way (mirror_run() of block/mirror.c, QEMU 7.2): with a guest that writes more often than
once per round trip such a moment may never come, however fast the link is. In `write-blocking`, libvirt's
--copy-storage-synchronous-writes, a write is answered once it is at the target, too.
"""

import time
from dataclasses import replace

from stage import StageError, wait_until
from stock import MIGRATION_PORT, NotConverged, Settings, Stock, StockVm

NBD_PORT = 4760
BACKGROUND, SYNCHRONOUS = "background", "write-blocking"


class MirroringVm(StockVm):
    """A vm of the operator with one disk."""

    sync = "full"  # or "top": the overlay alone, as libvirt's --copy-storage-inc
    copy_mode = BACKGROUND
    settings = Settings()  # of memory's migration
    limit_s = 240  # for the disk, and for memory

    def move_all(self, host, in_step=lambda: None):
        """{total_s, pause_ms, memory_s}; calls `in_step` when writes begin to be answered by the target, and before memory
        goes."""
        begun = time.monotonic()
        self.vm.forget_events()
        uri = f"tcp:{self.addresses[host]}:{self.port}"
        target = self._qemu(host, "-incoming", "defer")
        try:
            self._set(self.vm, replace(self.settings, capabilities=(*self.settings.capabilities, "pause-before-switchover")))
            self._set(target, self.settings)
            self._qmp(target, "migrate-incoming", uri=uri)
            self._mirror(target, self.addresses[host])
            if self.copy_mode == SYNCHRONOUS:
                in_step()
            self._await_ready()
            if self.copy_mode == SYNCHRONOUS:
                in_step()
            memory_begun = time.monotonic()
            self._qmp(self.vm, "migrate", uri=uri)
            wait_until(lambda: self._account()["status"] == "pre-switchover", self.limit_s, "pre-switchover")
            self._qmp(self.vm, "block-job-cancel", device="copy")
            self.vm.event_s("BLOCK_JOB_COMPLETED", self.limit_s)
            self._qmp(target, "nbd-server-stop")
            self._qmp(self.vm, "migrate-continue", state="pre-switchover")
            self._completed(time.monotonic() + self.limit_s)
            resumed = target.event_s("RESUME")
        except BaseException:
            target.end()
            raise
        ended, pause_ms = time.monotonic(), (resumed - self.vm.event_s("STOP")) * 1000
        self._left, self.vm = self.vm, target
        return {"total_s": ended - begun, "pause_ms": pause_ms, "memory_s": ended - memory_begun}

    def _mirror(self, target, address):
        port = str(NBD_PORT + self.port - MIGRATION_PORT)
        self._qmp(target, "nbd-server-start", addr={"type": "inet", "data": {"host": address, "port": port}})
        self._qmp(target, "block-export-add", id="disk", type="nbd", **{"node-name": "disk0"}, writable=True)
        self._qmp(self.vm, "blockdev-add", driver="nbd", **{"node-name": "there"}, export="disk0",
                  server={"type": "inet", "host": address, "port": port})
        self._qmp(self.vm, "blockdev-mirror", device="disk0", target="there", sync=self.sync,
                  **{"job-id": "copy", "copy-mode": self.copy_mode})

    def _await_ready(self):
        try:
            self.vm.event_s("BLOCK_JOB_READY", self.limit_s)
        except StageError as error:
            jobs = self.vm.execute("query-block-jobs")
            if not jobs:
                raise StageError("blockdev-mirror ended before it was ready") from error
            raise NotConverged(f"blockdev-mirror ({self.copy_mode}) was not ready within {self.limit_s} s: at its last "
                               f"{(jobs[0]['len'] - jobs[0]['offset']) / 1e6:.1f} MB it waits for a moment without a write "
                               "of the guest's under way") from error


class Mirroring(MirroringVm, Stock):
    """With the operator's network, to the client."""
