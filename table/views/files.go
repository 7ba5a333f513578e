package views

import (
	"context"
	"fmt"
	"iter"
	"net/netip"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name:  "files",
		Group: table.Files,
		Doc: `Show the open files of processes.

A row is one descriptor, as in /proc/PID/fd and fdinfo, read from the kernel's own
table. Pipes, sockets and the kernel's anonymous files have the names that links in
/proc/PID/fd show; the view sockets tells more of sockets. The table is that of the
process' first thread: one that a thread keeps for itself is not shown, nor are files
that are only mapped (see maps), passed on in a message under way, or registered with
io_uring.`,
		Columns: filesColumns,
		Rows:    filesRows,
		Example: "lab:demo --pid 1",
	}))
}

var filesColumns = []table.Column{
	{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace."},
	{Name: "fd", Type: table.Int, Doc: "Descriptor."},
	{Name: "type", Type: table.Text, Doc: "file, directory, char, block, fifo, symlink, socket, pipe, anon_inode, namespace."},
	{Name: "path", Type: table.Text, Doc: "Path in its mount namespace, or the name that the link in /proc/PID/fd shows."},
	{Name: "endpoint", Type: table.Text, Doc: "Of a socket, its protocol, local and remote address; missing for others."},
	{Name: "deleted", Type: table.Bool, Doc: "Whether that name was unlinked, or never existed (memfd)."},
	{Name: "flags", Type: table.List, Doc: "Flags of open(2), by name."},
	{Name: "flags_number", Type: table.Uint, Extra: true, Doc: "Flags as a number; fdinfo shows it in octal."},
	{Name: "position", Type: table.Int, Doc: "Offset of the next read or write, in bytes."},
	{Name: "size", Type: table.Int, Extra: true, Doc: "Size of the file in bytes, as its inode has it."},
	{Name: "device", Type: table.Text, Extra: true, Doc: "Device of its file system, major:minor."},
	{Name: "inode", Type: table.Uint, Extra: true, Doc: "Inode."},
	{Name: "mode", Type: table.Uint, Extra: true, Doc: "Type and permissions, as st_mode."},
	{Name: "links", Type: table.Uint, Extra: true, Doc: "Number of hard links."},
	{Name: "rdev", Type: table.Text, Extra: true, Doc: "Which device a device file stands for, major:minor; missing for others."},
	{Name: "mount_id", Type: table.Int, Extra: true, Doc: "Mount that it was opened through, as in the view mounts."},
	{Name: "file", Type: table.Addr, Extra: true, Doc: "Address of the struct file: descriptors that share a position have the same."},
}

func filesRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		l := g.Linux.NewLister()
		sockets := &fileSockets{s: g.Linux}
		for p, err := range wantedProcesses(ctx, g, where) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for f, err := range l.Files(ctx, p.Task) {
				var row table.Row
				if err != nil {
					err = fmt.Errorf("process %d: %w", p.pid, err)
				} else {
					var endpoint table.Value
					endpoint, err = sockets.endpoint(ctx, f)
					row = filesRow(p.pid, f, endpoint)
				}
				if !yield(row, err) {
					return
				}
			}
		}
	}
}

// fileSockets reads the sockets behind files, prepared when the first is met.
type fileSockets struct {
	s       *linux.System
	sockets *linux.SocketFiles
	err     error
}

// endpoint is the cell of that name. An error leaves the rest of the row as it is.
func (f *fileSockets) endpoint(ctx context.Context, file *linux.File) (table.Value, error) {
	if file.Type() != "socket" {
		return table.Missing(table.None), nil
	}
	if f.sockets == nil && f.err == nil {
		f.sockets, f.err = f.s.SocketFiles()
	}
	if f.err != nil {
		return unreadable(f.err), nil //nolint:nilerr // the cell tells
	}
	k, err := f.sockets.Of(ctx, file)
	if err != nil {
		return unreadable(err), fmt.Errorf("descriptor %d: %w", file.FD, err)
	}
	return text(endpoint(k)), nil
}

// endpoint writes a socket as one text; empty for none. A socket file in a file system is none.
func endpoint(k *linux.Socket) string {
	if k == nil {
		return ""
	}
	side := func(address netip.Addr, cid, port uint32) string {
		switch {
		case k.HasCID:
			return fmt.Sprintf("%d:%d", cid, port)
		case address.Is6():
			return fmt.Sprintf("[%s]:%d", address, port)
		case address.IsValid():
			return fmt.Sprintf("%s:%d", address, port)
		case k.Family == linux.FamilyNetlink:
			return fmt.Sprintf(":%d", port)
		}
		return ""
	}
	s := k.Protocol
	here := side(k.Local, k.LocalCID, k.LocalPort)
	if k.Family == linux.FamilyUnix {
		here = k.Path
	}
	if here != "" {
		s += " " + here
	}
	if k.RemotePort != 0 || k.Remote.IsValid() && !k.Remote.IsUnspecified() {
		s += "->" + side(k.Remote, k.RemoteCID, k.RemotePort)
	}
	return s
}

func filesRow(pid int32, f *linux.File, endpoint table.Value) table.Row {
	rdev := table.Missing(table.None)
	if t := f.Type(); t == "char" || t == "block" {
		rdev = table.TextValue(f.Rdev.String())
	}
	return table.Row{
		table.IntValue(int64(pid)), table.IntValue(int64(f.FD)), table.TextValue(f.Type()), text(f.Path), endpoint,
		table.BoolValue(f.Deleted), table.ListValue(f.FlagNames()), table.UintValue(uint64(f.Flags)),
		table.IntValue(f.Pos), table.IntValue(f.Size), table.TextValue(f.Device.String()), table.UintValue(f.Inode),
		table.UintValue(uint64(f.Mode)), table.UintValue(uint64(f.Links)), rdev,
		table.IntValue(int64(f.MountID)), table.AddrValue(uint64(f.Addr)),
	}
}
