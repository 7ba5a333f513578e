package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "locks", Group: table.Files,
		Doc: `Show the locks that processes hold on files, and those that wait for them.

A FLOCK or OFDLCK belongs to an open file, which several processes can share: who took it may
have ended. Locks that a network file system keeps at
its server are not seen.`,
		Columns: []table.Column{
			{Name: "kind", Type: table.Text, Doc: "As in /proc/locks: POSIX, OFDLCK, FLOCK, LEASE, DELEG, LAYOUT; ACCESS is a POSIX lock of the kernel's own."},
			{Name: "mode", Type: table.Text, Doc: "READ, WRITE, or UNLCK for a lease that is being given up."},
			{Name: "pid", Type: table.Int, Doc: "Process that took it; missing for OFDLCK, as in /proc/locks."},
			{Name: "taker", Type: table.Int, Extra: true, Doc: "Process that took it, also of an OFDLCK."},
			{Name: "device", Type: table.Text, Extra: true, Doc: "Major and minor number of the file system's device."},
			{Name: "inode", Type: table.Uint, Extra: true, Doc: "Inode of the file."},
			{Name: "start", Type: table.Int, Doc: "First byte that is locked."},
			{Name: "end", Type: table.Int, Doc: "Last byte that is locked; missing for the end of the file, wherever that is."},
			{Name: "blocked", Type: table.Bool, Doc: "Whether it waits, and is not held."},
			{Name: "path", Type: table.Text, Doc: "The file."},
			{Name: "deleted", Type: table.Bool, Extra: true, Doc: "Whether the file is unlinked."},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the file_lock, or file_lease."},
			{Name: "blocker", Type: table.Addr, Extra: true, Doc: "Of one that waits: address of the lock that it waits for."},
		},
		Rows:    lockRows,
		Example: "lab:demo",
	}))
}

func lockRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return rowsOf(g.Linux.FileLocks(ctx), lockRow)
}

func lockRow(l *linux.FileLock) table.Row {
	pid, taker, end := table.Missing(table.None), table.Missing(table.None), table.Missing(table.None)
	if l.PID > 0 {
		pid, taker = table.IntValue(int64(l.PID)), table.IntValue(int64(l.PID))
	}
	if l.Kind == "OFDLCK" {
		pid = table.Missing(table.None)
	}
	if l.End >= 0 {
		end = table.IntValue(l.End)
	}
	return table.Row{
		table.TextValue(l.Kind), table.TextValue(l.Mode), pid, taker, table.TextValue(l.Device.String()), table.UintValue(l.Inode),
		table.IntValue(l.Start), end, table.BoolValue(l.Blocked), text(l.Path), table.BoolValue(l.Deleted), address(l.Address), address(l.Blocker),
	}
}
