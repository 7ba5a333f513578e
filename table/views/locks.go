package views

import (
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "locks", Group: table.Files,
		Doc: `Show the locks that processes hold on files, and those that wait for them.

A FLOCK or OFDLCK belongs to an open file, which several processes can share: who took it may
have ended. Locks that a network file system keeps at
its server are not seen.`,
		Source:  "file_lock_list of every CPU and blocked_hash: file_lock (file_lease since 6.9)",
		Key:     []string{"address"},
		Example: "lab:demo",
	}, locksColumns, from((*linux.System).FileLocks)))
}

var locksColumns = table.Columns[linux.FileLock]{
	{
		Name: "kind", Type: table.Text, Doc: "As in /proc/locks: POSIX, OFDLCK, FLOCK, LEASE, DELEG, LAYOUT; ACCESS is a POSIX lock of the kernel's own.",
		Get: func(l *linux.FileLock) table.Value { return table.TextValue(l.Kind) },
	},
	{
		Name: "mode", Type: table.Text, Doc: "READ, WRITE, or UNLCK for a lease that is being given up.",
		Get: func(l *linux.FileLock) table.Value { return table.TextValue(l.Mode) },
	},
	{
		Name: "pid", Type: table.Int, Doc: "Process that took it; missing for OFDLCK, as in /proc/locks.",
		Get: func(l *linux.FileLock) table.Value { return when(l.PID > 0 && l.Kind != "OFDLCK", integer(l.PID)) },
	},
	{
		Name: "taker", Type: table.Int, Extra: true, Doc: "Process that took it, also of an OFDLCK.",
		Get: func(l *linux.FileLock) table.Value { return when(l.PID > 0, integer(l.PID)) },
	},
	{
		Name: "device", Type: table.Text, Extra: true, Doc: "Major and minor number of the file system's device.",
		Get: func(l *linux.FileLock) table.Value { return table.TextValue(l.Device.String()) },
	},
	{Name: "inode", Type: table.Uint, Extra: true, Doc: "Inode of the file.", Get: func(l *linux.FileLock) table.Value { return unsigned(l.Inode) }},
	{Name: "start", Type: table.Int, Doc: "First byte that is locked.", Get: func(l *linux.FileLock) table.Value { return integer(l.Start) }},
	{
		Name: "end", Type: table.Int, Doc: "Last byte that is locked; missing for the end of the file, wherever that is.",
		Get: func(l *linux.FileLock) table.Value { return when(l.End >= 0, integer(l.End)) },
	},
	{
		Name: "blocked", Type: table.Bool, Doc: "Whether it waits, and is not held.",
		Get: func(l *linux.FileLock) table.Value { return table.BoolValue(l.Blocked) },
	},
	{Name: "path", Type: table.Text, Doc: "The file.", Get: func(l *linux.FileLock) table.Value { return text(l.Path) }},
	{
		Name: "deleted", Type: table.Bool, Extra: true, Doc: "Whether the file is unlinked.",
		Get: func(l *linux.FileLock) table.Value { return table.BoolValue(l.Deleted) },
	},
	{
		Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the file_lock, or file_lease.",
		Get: func(l *linux.FileLock) table.Value { return address(l.Address) },
	},
	{
		Name: "blocker", Type: table.Addr, Extra: true, Doc: "Of one that waits: address of the lock that it waits for.",
		Get: func(l *linux.FileLock) table.Value { return address(l.Blocker) },
	},
}
