"""A small client of GDB's remote serial protocol, and the guest under test. Used by gdb.sh."""
import os
import re
import socket
import struct
import subprocess
import time


class Failed(Exception):
    pass


class Client:
    def __init__(self, address, acks=False):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        for _ in range(200):
            self.s = socket.socket(family, socket.SOCK_STREAM)
            try:
                self.s.connect(address)
                break
            except OSError:
                self.s.close()
                time.sleep(0.05)
        else:
            raise Failed(f"cannot connect to {address}")
        self.s.settimeout(60)
        self.acks = True
        self.buf = b""
        self.console = ""
        self.features = self.ask("qSupported:swbreak+;hwbreak+;vContSupported+").split(";")
        if not acks:
            assert self.ask("QStartNoAckMode") == "OK"
            self.acks = False
        self.regs = {}
        self.read_target()

    # -- packets
    def raw(self, data):
        self.s.sendall(data)

    def send(self, text):
        body = text.encode("latin1") if isinstance(text, str) else text
        body = re.sub(rb"[$#}*]", lambda m: b"}" + bytes([m.group()[0] ^ 0x20]), body)
        self.raw(b"$" + body + b"#%02x" % (sum(body) & 255))
        if self.acks:
            got = self.byte()
            if got != b"+":
                raise Failed(f"{got!r} instead of an acknowledgement of {text!r}")

    def byte(self):
        if not self.buf:
            self.buf = self.s.recv(65536)
            if not self.buf:
                raise Failed("the connection was closed")
        b, self.buf = self.buf[:1], self.buf[1:]
        return b

    def recv(self):
        while self.byte() != b"$":
            pass
        body = b""
        while (b := self.byte()) != b"#":
            body += b
        told = int(self.byte() + self.byte(), 16)
        if told != sum(body) & 255:
            raise Failed(f"wrong sum in {body!r}")
        if self.acks:
            self.raw(b"+")
        return re.sub(rb"}(.)", lambda m: bytes([m.group(1)[0] ^ 0x20]), body, flags=re.S).decode("latin1")

    def ask(self, text):
        self.send(text)
        return self.recv()

    def ok(self, text):
        got = self.ask(text)
        if got != "OK":
            raise Failed(f"{text!r}: {got!r}")

    def monitor(self, command):
        self.send("qRcmd," + command.encode().hex())
        out = ""
        while (got := self.recv()) != "OK":
            if not got.startswith("O"):
                raise Failed(f"monitor {command}: {got!r}")
            out += bytes.fromhex(got[1:]).decode()
        return out

    # -- registers
    def document(self):
        xml = ""
        while True:
            piece = self.ask(f"qXfer:features:read:target.xml:{len(xml):x},700")
            xml += piece[1:]
            if piece[0] == "l":
                return xml

    def read_target(self):
        self.xml = self.document()
        at = 0
        for name, bits, number in re.findall(r'<reg name="(\w+)" bitsize="(\d+)"[^>]* regnum="(\d+)"', self.xml):
            self.regs[name] = (int(number), int(bits) // 8, at)
            at += int(bits) // 8

    def reg(self, name):
        number, size, _ = self.regs[name]
        return int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}")), "little")

    def set_reg(self, name, value):
        number, size, _ = self.regs[name]
        return self.ask(f"P{number:x}={value.to_bytes(size, 'little').hex()}")

    def general(self):
        return bytes.fromhex(self.ask("g"))

    # -- memory
    def read_all(self, address, n):
        data = b""
        while len(data) < n:
            data += self.read(address + len(data), min(n - len(data), 4096))
        return data

    def read(self, address, n):
        got = self.ask(f"m{address:x},{n:x}")
        if got.startswith("E"):
            raise Failed(f"memory at {address:x}: {got}")
        return bytes.fromhex(got)

    def read_32(self, address):
        return struct.unpack("<I", self.read(address, 4))[0]

    def write(self, address, data):
        self.ok(f"M{address:x},{len(data):x}:{data.hex()}")

    def write_32(self, address, value):
        self.write(address, struct.pack("<I", value))

    # -- execution
    def go(self, how="vCont;c"):
        self.send(how)
        return self.stop()

    def stop(self):
        got = self.recv()
        if got[0] not in "TSWX":
            raise Failed(f"no stop reply: {got!r}")
        return got

    def step(self):
        got = self.go("vCont;s:1")
        if not got.startswith("T05"):
            raise Failed(f"a step ended by {got!r}")
        return self.reg("eip")

    def interrupt(self):
        self.raw(b"\x03")
        return self.stop()


class Guest:
    """verso run with a debugger's service; its symbols as attributes."""

    def __init__(self, elf, *options, tmp=None, wait=True):
        self.path = os.path.join(tmp, "gdb.sock")
        self.symbols = {}
        bios = "--bios" in options
        for line in "" if bios else subprocess.check_output(["nm", elf], text=True).splitlines():
            value, _, name = line.split()
            self.symbols[name] = int(value, 16)
        command = [os.environ["VERSO"], "run", *([] if bios else ["--kernel", elf]), "--no-stdin", f"--gdb=unix:{self.path}", *options]
        if not any(o.startswith("--cache") for o in options):
            command.append("--no-cache")
        if not wait:
            command.append("--gdb-run")
        self.err = open(os.path.join(tmp, "guest.err"), "w+")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.err, stderr=self.err)

    def __getattr__(self, name):
        if name in self.__dict__.get("symbols", {}):
            return self.symbols[name]
        raise AttributeError(name)

    def attach(self, **more):
        return Client(self.path, **more)

    def status(self):
        return self.process.wait(timeout=60)

    def said(self):
        self.err.flush()
        with open(self.err.name) as f:
            return f.read()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
