package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/disk"
)

// program serves images; Debian has it in qemu-utils.
const program = "qemu-nbd"

const startTime = 20 * time.Second

// signs are the formats that qemu-nbd is asked for, by how their files begin. What is in such a file cannot name another file: that is
// why VMDKs that are lists of files are not among them.
var signs = []struct {
	format string
	offset int
	bytes  string
}{
	{"vmdk", 0, "KDMV"},
	{"vhdx", 0, "vhdxfile"},
	{"vpc", 0, "conectix"},
	{"vdi", 0x40, "\x7f\x10\xda\xbe"},
	{"parallels", 0, "WithoutFreeSpace"},
	{"parallels", 0, "WithouFreSpacExt"},
}

// lists are files that name others, which whoever made them chose: they are refused.
const list = "# Disk DescriptorFile"

// Format is the format of an image that [Serve] can open, by its first bytes; "" for others. The error wraps
// disk.ErrUnsupported for one of these formats that is refused.
func Format(d disk.Device) (format string, err error) {
	head := make([]byte, 64<<10)
	n, err := d.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	head = head[:n]
	if bytes.HasPrefix(head, []byte(list)) {
		return "", fmt.Errorf("VMDK that is a list of files: %w: convert it with qemu-img, if you trust it", disk.ErrUnsupported)
	}
	if bytes.HasPrefix(head, []byte("QED\x00")) {
		return "", fmt.Errorf("QED: %w: convert it with qemu-img, if you trust it", disk.ErrUnsupported)
	}
	for _, s := range signs {
		if len(head) < s.offset+len(s.bytes) || string(head[s.offset:s.offset+len(s.bytes)]) != s.bytes {
			continue
		}
		if s.format == "vmdk" {
			if err := alone(d, head); err != nil {
				return "", err
			}
		}
		return s.format, nil
	}
	return "", nil
}

// Formats are those that [Serve] can open.
func Formats() (formats []string) {
	for _, s := range signs {
		if !slices.Contains(formats, s.format) {
			formats = append(formats, s.format)
		}
	}
	return formats
}

// alone refuses a VMDK that names other files. One without a capacity is a list of them, for QEMU (block/vmdk.c, vmdk_open_vmdk4), wherever
// in the file the list is. Parents are named in the description; QEMU is told not to open one in any case.
func alone(d disk.Device, head []byte) error {
	const capacityAt, descriptionAt, maxDescription = 12, 28, 20 * 512
	if len(head) < 512 || binary.LittleEndian.Uint64(head[capacityAt:]) == 0 {
		return fmt.Errorf("VMDK that is a list of files: %w: convert it with qemu-img, if you trust it", disk.ErrUnsupported)
	}
	if sector := binary.LittleEndian.Uint64(head[descriptionAt:]); sector < 1<<53 {
		text := make([]byte, maxDescription)
		n, _ := d.ReadAt(text, int64(sector)*512) // there need be none
		head = append(bytes.Clone(head), text[:n]...)
	}
	if bytes.Contains(head, []byte("parentFileNameHint")) {
		return fmt.Errorf("VMDK that is based on another: %w", disk.ErrUnsupported)
	}
	return nil
}

// A Served is an image that a qemu-nbd of ours serves.
type Served struct {
	*Client
	process *exec.Cmd
	dir     string
	ended   chan struct{}
}

// Serve has qemu-nbd read an image of a format that is not read here. It gets the open file and nothing else to open; what it is based on is
// not read. Close ends it; so does the end of this process.
func Serve(ctx context.Context, file *os.File, format string) (_ *Served, err error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("%s images are read by %s, which is not installed (Debian's package qemu-utils): %w", format, program, err)
	}
	s := &Served{ended: make(chan struct{})}
	if s.dir, err = os.MkdirTemp("", "outsight-nbd-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(s.dir))
		}
	}()
	socket := filepath.Join(s.dir, "s")
	// It ends with its one client, since it is not told to be persistent.
	image := map[string]any{"driver": format, "file": map[string]any{"driver": "file", "locking": "off", "filename": "/proc/self/fd/3"}}
	if format == "vmdk" {
		image["backing"] = nil
	}
	name, err := json.Marshal(image)
	if err != nil {
		return nil, err
	}
	s.process = exec.Command(path, "--read-only", "--socket="+socket, "--export-name=disk", "json:"+string(name))
	s.process.ExtraFiles = []*os.File{file}
	s.process.Env = []string{"LANG=C"}
	says := &limited{}
	s.process.Stderr = says
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.process.Wait() // how it ended is in what it said
		close(s.ended)
	}()
	if s.Client, err = s.dial(ctx, socket, says); err != nil {
		s.kill()
		return nil, fmt.Errorf("%s, for an image of format %s: %w", program, format, err)
	}
	return s, nil
}

func (s *Served) dial(ctx context.Context, socket string, says *limited) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		c, err := Dial(ctx, socket, "disk")
		if err == nil {
			return c, nil
		}
		select {
		case <-s.ended:
			return nil, errors.New(strings.TrimSpace(says.String()))
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s *Served) kill() {
	_ = s.process.Process.Kill() // it may have ended
	<-s.ended
}

// Close ends the connection, and with it the server.
func (s *Served) Close() error {
	err := s.Client.Close()
	select {
	case <-s.ended:
	case <-time.After(time.Second):
		s.kill()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// limited keeps the beginning of what is written to it.
type limited struct {
	mu sync.Mutex
	b  []byte
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	const most = 2000
	l.b = append(l.b, p[:min(len(p), max(most-len(l.b), 0))]...)
	return len(p), nil
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}
