package lab

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCPIO(t *testing.T) {
	host := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(host, []byte("#!/bin/sh\n"), 0o750); err != nil {
		t.Fatal(err)
	}
	write := func() []byte {
		var b bytes.Buffer
		c := newCPIOWriter(&b)
		c.dir("/dev")
		c.char("/dev/console", 0o600, 5, 1)
		c.file("/etc/deep/er/file", 0o644, "some text")
		c.link("/sbin/init", "../bin/busybox")
		c.hostFile("/bin/tool", host)
		if err := c.close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	archive := write()
	if !bytes.Equal(archive, write()) {
		t.Error("the same content gives different archives")
	}
	if len(archive)%4 != 0 {
		t.Error("an archive must be padded, or nothing can follow it")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("no busybox to read it with")
	}
	cmd := exec.Command(busybox, "cpio", "-tv")
	cmd.Stdin = bytes.NewReader(archive)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"drwxr-xr-x", "crw-------", "dev/console", "etc/deep\n", "etc/deep/er/file", "sbin/init -> ../bin/busybox", "-rwxr-x---", "bin/tool"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestCPIOMissingFile(t *testing.T) {
	c := newCPIOWriter(&bytes.Buffer{})
	if err := addFiles(c, map[string]string{"/x": filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a missing file went unnoticed")
	}
	if err := addFiles(newCPIOWriter(&bytes.Buffer{}), map[string]string{"relative": "x"}); err == nil {
		t.Error("a relative path went unnoticed")
	}
}
