package lab

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A socket that is there, and where no process listens yet, is asked again; one of a QEMU that
// has ended is not.
func TestDialBooting(t *testing.T) {
	g := &Guest{Name: "test", Dir: t.TempDir()}
	lock, err := lockDir(g.Dir) // as its QEMU would hold it
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(g.Dir, "agent")}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := g.dialBooting(ctx); err == nil {
		t.Fatal("no process listens, but one answers")
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = unix.Listen(fd, 1) })
	l, err := g.dialBooting(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.conn.Close()
	unix.Shutdown(fd, unix.SHUT_RDWR)
	lock.Close()
	if _, err := g.dialBooting(t.Context()); err == nil {
		t.Error("its QEMU has ended, and someone answers")
	}
}
