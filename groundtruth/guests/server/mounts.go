package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mountPoints are file systems that a Debian has mounted and a busybox guest has not.
func (s *server) mountPoints() error {
	var errs []error
	for _, m := range []struct {
		kind, dir string
		magic     int64
	}{
		{"cgroup2", "/sys/fs/cgroup", unix.CGROUP2_SUPER_MAGIC},
		{"bpf", "/sys/fs/bpf", unix.BPF_FS_MAGIC},
		{"tracefs", "/sys/kernel/tracing", unix.TRACEFS_MAGIC},
		{"debugfs", "/sys/kernel/debug", unix.DEBUGFS_MAGIC},
		{"securityfs", "/sys/kernel/security", unix.SECURITYFS_MAGIC},
	} {
		var st unix.Statfs_t
		if err := unix.Statfs(m.dir, &st); err == nil && st.Type == m.magic {
			continue
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			errs = append(errs, fmt.Errorf("mount %s: %w", m.kind, err))
		}
	}
	return errors.Join(errs...)
}

func (s *server) mounts() error {
	var errs []error
	mount := func(source, name, kind string, flags uintptr, data string) string {
		dir := s.path(name)
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = unix.Mount(source, dir, kind, flags, data)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		return dir
	}
	files := mount("files in memory", "tmpfs", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOATIME, "size=4m,nr_inodes=500,mode=1777")
	errs = append(errs,
		os.WriteFile(files+"/small", []byte("what is in the small file\n"), 0o644),
		os.WriteFile(files+"/large", []byte(strings.Repeat("0123456789abcde\n", 1<<14)), 0o600),
		os.WriteFile(files+"/empty", nil, 0o600),
		os.MkdirAll(files+"/dir/below", 0o755),
		os.WriteFile(files+"/dir/below/odd \x1b[31m\n\xff", []byte("odd"), 0o644),
		os.Symlink("../small", files+"/dir/link"),
		os.Symlink(strings.Repeat("long/", 60), files+"/long-link"),
		os.Link(files+"/small", files+"/dir/hard-link"),
		unix.Mkfifo(files+"/fifo", 0o600),
		unix.Mknod(files+"/device", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	if f, err := os.Create(files + "/holes"); err == nil {
		_, e1 := f.WriteAt([]byte("start"), 0)
		_, e2 := f.WriteAt([]byte("far"), 1<<20)
		errs = append(errs, e1, e2, f.Close())
	}
	mount(files, "bind", "", unix.MS_BIND, "")
	readOnly := mount(files+"/dir", "read-only", "", unix.MS_BIND, "")
	errs = append(errs, unix.Mount("", readOnly, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NODIRATIME, ""))
	mount("first", "stacked", "tmpfs", 0, "size=64k")
	mount("second", "stacked", "tmpfs", unix.MS_RDONLY, "size=64k")
	mount("odd", "with space\tand\nmore\\", "tmpfs", 0, "size=64k")
	// What happens under one of these reaches others, or does not.
	for name, flag := range map[string]uintptr{"shared": unix.MS_SHARED, "private": unix.MS_PRIVATE, "unbindable": unix.MS_UNBINDABLE} {
		dir := mount(name, "propagation-"+name, "tmpfs", 0, "size=64k")
		errs = append(errs, unix.Mount("", dir, "", flag, ""))
	}
	slave := mount(s.path("propagation-shared"), "propagation-slave", "", unix.MS_BIND, "")
	errs = append(errs, unix.Mount("", slave, "", unix.MS_SLAVE, ""))
	both := mount(slave, "propagation-slave-shared", "", unix.MS_BIND, "")
	errs = append(errs, unix.Mount("", both, "", unix.MS_SHARED, ""))
	_, err := s.again("mounts", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS})
	return errors.Join(append(errs, err)...)
}

// playMounts sees mounts that nobody else does.
func (s *server) playMounts([]string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	dir := s.path("only-here")
	return errors.Join(os.MkdirAll(dir, 0o755), unix.Mount("only here", dir, "tmpfs", 0, "size=128k"),
		os.WriteFile(dir+"/private", []byte("seen from inside only\n"), 0o644), s.open(dir+"/private", unix.O_RDONLY, "", 5))
}

func (s *server) overlay() error {
	for _, dir := range []string{"lower", "upper", "work", "merged"} {
		if err := os.MkdirAll(s.path("overlay/"+dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(s.path("overlay/lower/file"), []byte("from below"), 0o644); err != nil {
		return err
	}
	merged := s.path("overlay/merged")
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", s.path("overlay"))
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return fmt.Errorf("%w (module overlay)", err)
	}
	return errors.Join(s.open(merged+"/file", unix.O_RDONLY, "", 4), s.open(merged+"/new", unix.O_CREAT|unix.O_RDWR, "above", -1))
}
