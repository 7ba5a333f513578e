package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name:  "files",
		Group: table.Files,
		Doc: `Show the open files of processes.

A row is one descriptor, as in /proc/PID/fd and fdinfo, read from the kernel's own
table. Pipes, sockets and the kernel's anonymous files have the names that links in
/proc/PID/fd show; the view sockets shows more of sockets. The table is that of the
process' first thread: one that a thread keeps for itself is not shown, nor are files
that are only mapped (see maps), passed on in a message under way, or registered with
io_uring.`,
		Source:  "files_struct and fdtable of every process: struct file, dentry, inode; struct sock for endpoints",
		Key:     []string{"pid", "fd"},
		Example: "lab:demo --pid 1",
	}, filesColumns, openFiles))
}

var filesColumns = table.Columns[openFile]{
	{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace.", Get: func(f *openFile) table.Value { return integer(f.pid) }},
	{Name: "fd", Type: table.Int, Doc: "Descriptor.", Get: func(f *openFile) table.Value { return integer(f.FD) }},
	{
		Name: "type", Type: table.Text, Doc: "file, directory, char, block, fifo, symlink, socket, pipe, anon_inode, namespace.",
		Get: func(f *openFile) table.Value { return table.TextValue(f.Type()) },
	},
	{
		Name: "path", Type: table.Text, Doc: "Path in its mount namespace, or the name that the link in /proc/PID/fd shows.",
		Get: func(f *openFile) table.Value { return text(f.Path) },
	},
	{Name: "endpoint", Type: table.Text, Doc: "Of a socket, its protocol, local and remote address; missing for others.", Get: (*openFile).endpoint},
	{
		Name: "deleted", Type: table.Bool, Doc: "Whether that name was unlinked, or never existed (memfd).",
		Get: func(f *openFile) table.Value { return table.BoolValue(f.Deleted) },
	},
	{Name: "flags", Type: table.List, Doc: "Flags of open(2), by name.", Get: func(f *openFile) table.Value { return table.ListValue(f.FlagNames()) }},
	{
		Name: "flags_number", Type: table.Uint, Extra: true, Doc: "Flags as a number; fdinfo shows it in octal.",
		Get: func(f *openFile) table.Value { return unsigned(f.Flags) },
	},
	{Name: "position", Type: table.Int, Doc: "Offset of the next read or write, in bytes.", Get: func(f *openFile) table.Value { return integer(f.Pos) }},
	{
		Name: "size", Type: table.Int, Extra: true, Doc: "Size of the file in bytes, as its inode has it.",
		Get: func(f *openFile) table.Value { return integer(f.Size) },
	},
	{
		Name: "device", Type: table.Text, Extra: true, Doc: "Device of its file system, major:minor.",
		Get: func(f *openFile) table.Value { return table.TextValue(f.Device.String()) },
	},
	{Name: "inode", Type: table.Uint, Extra: true, Doc: "Inode.", Get: func(f *openFile) table.Value { return unsigned(f.Inode) }},
	{Name: "mode", Type: table.Uint, Extra: true, Doc: "Type and permissions, as st_mode.", Get: func(f *openFile) table.Value { return unsigned(f.Mode) }},
	{Name: "links", Type: table.Uint, Extra: true, Doc: "Number of hard links.", Get: func(f *openFile) table.Value { return unsigned(f.Links) }},
	{
		Name: "rdev", Type: table.Text, Extra: true, Doc: "Which device a device file stands for, major:minor; missing for others.",
		Get: func(f *openFile) table.Value {
			if t := f.Type(); t != "char" && t != "block" {
				return none
			}
			return table.TextValue(f.Rdev.String())
		},
	},
	{
		Name: "mount_id", Type: table.Int, Extra: true, Doc: "Mount that it was opened through, as in the view mounts.",
		Get: func(f *openFile) table.Value { return integer(f.MountID) },
	},
	{
		Name: "file", Type: table.Addr, Extra: true, Doc: "Address of the struct file: descriptors that share a position have the same.",
		Get: func(f *openFile) table.Value { return address(f.Addr) },
	},
}

// fileSockets reads the sockets behind files, prepared when the first is met.
type fileSockets struct {
	s       *linux.System
	sockets *network.SocketFiles
	err     error
}

// endpoint is the cell of that name. An error leaves the rest of the row as it is.
func (f *fileSockets) endpoint(ctx context.Context, file *linux.File) (table.Value, error) {
	if file.Type() != "socket" {
		return table.Missing(table.None), nil
	}
	if f.sockets == nil && f.err == nil {
		f.sockets, f.err = network.NewSocketFiles(f.s)
	}
	if f.err != nil {
		return unreadable(f.err), nil //nolint:nilerr // the cell shows it
	}
	k, err := f.sockets.Of(ctx, file)
	if err != nil {
		return unreadable(err), fmt.Errorf("descriptor %d: %w", file.FD, err)
	}
	return text(k.Endpoints()), nil
}

// openFile is a row of files.
type openFile struct {
	*linux.File
	pid     int32
	ctx     context.Context
	sockets *fileSockets
	unread  error
}

// Unread is part of [table.Partial].
func (f *openFile) Unread() error { return f.unread }

func (f *openFile) endpoint() (cell table.Value) {
	cell, f.unread = f.sockets.endpoint(f.ctx, f.File)
	return cell
}

func openFiles(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*openFile, error] {
	return func(yield func(*openFile, error) bool) {
		reader := l.Linux.NewProcessReader()
		row := openFile{ctx: ctx, sockets: &fileSockets{s: l.Linux}}
		for p, err := range wantedProcesses(ctx, l, r) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			row.pid = p.pid
			for f, err := range reader.Files(ctx, p.Task) {
				if row.File, row.unread = f, nil; err != nil {
					if !yield(nil, fmt.Errorf("process %d: %w", p.pid, err)) {
						return
					}
					continue
				}
				if !yield(&row, nil) {
					return
				}
			}
		}
	}
}
