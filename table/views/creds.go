package views

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"strconv"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "creds",
		Doc: `Show what processes may do: users, groups, capabilities, seccomp, labels.

The credentials are the task's own, which /proc/PID/status shows too; "overridden"
says that it acts with others for the moment. Users and groups are numbered as in the
initial user namespace; capabilities count in "user_ns" only. Threads have credentials
of their own: --threads shows a line for each. The label is AppArmor's; SELinux's is a
number that only its policy can tell, and is not shown.`,
		Columns: credColumns,
		Rows:    credRows,
		Example: "lab:demo --pid 1",
	}))
}

var credColumns = []table.Column{
	{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace."},
	{Name: "tid", Type: table.Int, Extra: true, Doc: "Thread; the leading thread has the number of the process."},
	{Name: "comm", Type: table.Text, Doc: "Name."},
	{Name: "uid", Type: table.Uint, Doc: "Real user."},
	{Name: "euid", Type: table.Uint, Doc: "Effective user."},
	{Name: "suid", Type: table.Uint, Extra: true, Doc: "Saved user."},
	{Name: "fsuid", Type: table.Uint, Extra: true, Doc: "User for files."},
	{Name: "gid", Type: table.Uint, Doc: "Real group."},
	{Name: "egid", Type: table.Uint, Extra: true, Doc: "Effective group."},
	{Name: "sgid", Type: table.Uint, Extra: true, Doc: "Saved group."},
	{Name: "fsgid", Type: table.Uint, Extra: true, Doc: "Group for files."},
	{Name: "groups", Type: table.Numbers, Doc: "Supplementary groups."},
	{Name: "caps", Type: table.Text, Doc: "The effective capabilities in one word: all, none, or how many."},
	{Name: "effective", Type: table.List, Extra: true, Doc: "Capabilities that count now, without \"cap_\"."},
	{Name: "permitted", Type: table.List, Extra: true, Doc: "Capabilities that it may make effective."},
	{Name: "inheritable", Type: table.List, Extra: true, Doc: "Capabilities that a program with the same in its file keeps."},
	{Name: "bounding", Type: table.List, Extra: true, Doc: "Capabilities that it can gain at all."},
	{Name: "ambient", Type: table.List, Extra: true, Doc: "Capabilities that every program it executes keeps."},
	{Name: "securebits", Type: table.List, Extra: true, Doc: "Securebits that are set."},
	{Name: "no_new_privs", Type: table.Bool, Doc: "Whether executing a program can gain it nothing."},
	{Name: "seccomp", Type: table.Text, Doc: "disabled, strict or filter; missing where the kernel has none."},
	{Name: "seccomp_filters", Type: table.Uint, Extra: true, Doc: "Number of seccomp filters, inherited ones included."},
	{Name: "label", Type: table.Text, Doc: "AppArmor's label with its mode; missing without AppArmor."},
	{Name: "login_uid", Type: table.Uint, Extra: true, Doc: "User who logged in, as audit has it; missing if unset."},
	{Name: "session", Type: table.Uint, Extra: true, Doc: "Login session, as audit has it; missing if unset."},
	{Name: "user_ns", Type: table.Uint, Doc: "Inode of the user namespace."},
	{Name: "overridden", Type: table.Bool, Extra: true, Doc: "Whether it acts with other credentials for the moment."},
	{Name: "cred", Type: table.Addr, Extra: true, Doc: "Address of the struct cred; tasks can share one."},
	{Name: "with_threads", Type: table.Bool, Option: true, Doc: "A line for every thread."},
}

func credRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		l := g.Linux.NewLister()
		for t, err := range chosen(ctx, g, l, where, where.Option("with_threads")) {
			var row table.Row
			if err == nil {
				var c *linux.Cred
				if c, err = l.CredOf(t); c != nil {
					row, err = credRow(c)
				}
			}
			if !yield(row, ended(err)) {
				return
			}
		}
	}
}

// howMany is a set of capabilities in one word. Linux has had 41 since 5.9.
func howMany(set uint64) string {
	const all = 1<<41 - 1
	switch {
	case set == 0:
		return "none"
	case set&all == all:
		return "all"
	}
	return strconv.Itoa(bits.OnesCount64(set))
}

func credRow(c *linux.Cred) (row table.Row, partly error) {
	id := func(n uint32) table.Value { return table.UintValue(uint64(n)) }
	caps := func(set uint64) table.Value { return table.ListValue(linux.CapabilityNames(set)) }
	unset := func(n uint32) table.Value {
		if n == ^uint32(0) {
			return table.Missing(table.None)
		}
		return id(n)
	}
	label := text(c.Label)
	switch {
	case errors.Is(c.LabelErr, kobj.ErrUnsupported):
		label = table.Missing(table.Unsupported)
	case c.LabelErr != nil:
		label = unreadable(c.LabelErr)
		partly = fmt.Errorf("label of process %d: %w", c.PID, c.LabelErr)
	}
	if c.GroupsLost > 0 {
		partly = fmt.Errorf("groups of process %d: %w: %d are not shown", c.PID, kobj.ErrBroken, c.GroupsLost)
	}
	filters := id(c.Filters)
	if c.Seccomp == "" {
		filters = table.Missing(table.None)
	}
	return table.Row{
		table.IntValue(int64(c.PID)), table.IntValue(int64(c.TID)), table.TextValue(c.Comm),
		id(c.UID), id(c.EUID), id(c.SUID), id(c.FSUID), id(c.GID), id(c.EGID), id(c.SGID), id(c.FSGID),
		table.NumbersValue(c.Groups), table.TextValue(howMany(c.Caps.Effective)), caps(c.Caps.Effective), caps(c.Caps.Permitted), caps(c.Caps.Inheritable),
		caps(c.Caps.Bounding), caps(c.Caps.Ambient), table.ListValue(c.Securebits), table.BoolValue(c.NoNewPrivs),
		text(c.Seccomp), filters, label, unset(c.LoginUID), unset(c.SessionID),
		table.UintValue(c.UserNS), table.BoolValue(c.Overridden), address(c.Addr), table.Missing(table.None),
	}, partly
}
