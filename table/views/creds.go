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
	table.Register(table.Of(table.Spec{
		Name: "creds",
		Doc: `Show what processes may do: users, groups, capabilities, seccomp, labels.

The credentials are the task's own, which /proc/PID/status shows too; "overridden"
says that it acts with others for the moment. Users and groups are numbered as in the
initial user namespace; capabilities count in "user_ns" only. Threads have credentials
of their own: --threads shows a line for each. The label is AppArmor's, or SELinux's in the
words of the policy that is loaded.`,
		Source:  "task_struct.real_cred and cred: struct cred, group_info, task_struct.seccomp, the blobs of AppArmor and SELinux, selinux_state.policy: struct sidtab, task_struct.loginuid",
		Key:     []string{"pid", "tid"},
		Example: "lab:demo --pid 1",
	}, credColumns, credentials))
}

var credColumns = table.Columns[linux.Cred]{
	{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace.", Get: func(c *linux.Cred) table.Value { return integer(c.PID) }},
	{
		Name: "tid", Type: table.Int, Extra: true, Doc: "Thread; the leading thread has the number of the process.",
		Get: func(c *linux.Cred) table.Value { return integer(c.TID) },
	},
	{Name: "comm", Type: table.Text, Doc: "Name.", Get: func(c *linux.Cred) table.Value { return table.TextValue(c.Comm) }},
	{Name: "uid", Type: table.Uint, Doc: "Real user.", Get: func(c *linux.Cred) table.Value { return unsigned(c.UID) }},
	{Name: "euid", Type: table.Uint, Doc: "Effective user.", Get: func(c *linux.Cred) table.Value { return unsigned(c.EUID) }},
	{Name: "suid", Type: table.Uint, Extra: true, Doc: "Saved user.", Get: func(c *linux.Cred) table.Value { return unsigned(c.SUID) }},
	{Name: "fsuid", Type: table.Uint, Extra: true, Doc: "User for files.", Get: func(c *linux.Cred) table.Value { return unsigned(c.FSUID) }},
	{Name: "gid", Type: table.Uint, Doc: "Real group.", Get: func(c *linux.Cred) table.Value { return unsigned(c.GID) }},
	{Name: "egid", Type: table.Uint, Extra: true, Doc: "Effective group.", Get: func(c *linux.Cred) table.Value { return unsigned(c.EGID) }},
	{Name: "sgid", Type: table.Uint, Extra: true, Doc: "Saved group.", Get: func(c *linux.Cred) table.Value { return unsigned(c.SGID) }},
	{Name: "fsgid", Type: table.Uint, Extra: true, Doc: "Group for files.", Get: func(c *linux.Cred) table.Value { return unsigned(c.FSGID) }},
	{Name: "groups", Type: table.Numbers, Doc: "Supplementary groups.", Get: func(c *linux.Cred) table.Value { return table.NumbersValue(c.Groups) }},
	{
		Name: "caps", Type: table.Text, Doc: "The effective capabilities in one word: all, none, or how many.",
		Get: func(c *linux.Cred) table.Value { return table.TextValue(howMany(c.Caps.Effective)) },
	},
	{
		Name: "effective", Type: table.List, Extra: true, Doc: "Capabilities that count now, without \"cap_\".",
		Get: func(c *linux.Cred) table.Value { return capabilities(c.Caps.Effective) },
	},
	{
		Name: "permitted", Type: table.List, Extra: true, Doc: "Capabilities that it may make effective.",
		Get: func(c *linux.Cred) table.Value { return capabilities(c.Caps.Permitted) },
	},
	{
		Name: "inheritable", Type: table.List, Extra: true, Doc: "Capabilities that a program with the same in its file keeps.",
		Get: func(c *linux.Cred) table.Value { return capabilities(c.Caps.Inheritable) },
	},
	{
		Name: "bounding", Type: table.List, Extra: true, Doc: "Capabilities that it can gain at all.",
		Get: func(c *linux.Cred) table.Value { return capabilities(c.Caps.Bounding) },
	},
	{
		Name: "ambient", Type: table.List, Extra: true, Doc: "Capabilities that every program it executes keeps.",
		Get: func(c *linux.Cred) table.Value { return capabilities(c.Caps.Ambient) },
	},
	{
		Name: "securebits", Type: table.List, Extra: true, Doc: "Securebits that are set.",
		Get: func(c *linux.Cred) table.Value { return table.ListValue(c.Securebits) },
	},
	{
		Name: "no_new_privs", Type: table.Bool, Doc: "Whether executing a program can gain it nothing.",
		Get: func(c *linux.Cred) table.Value { return table.BoolValue(c.NoNewPrivs) },
	},
	{
		Name: "seccomp", Type: table.Text, Doc: "disabled, strict or filter; missing where the kernel has none.",
		Get: func(c *linux.Cred) table.Value { return text(c.Seccomp) },
	},
	{
		Name: "seccomp_filters", Type: table.Uint, Extra: true, Doc: "Number of seccomp filters, inherited ones included.",
		Get: func(c *linux.Cred) table.Value { return when(c.Seccomp != "", unsigned(c.Filters)) },
	},
	{
		Name: "label", Type: table.Text, Doc: "Label of AppArmor with its mode, or context of SELinux; missing without either.",
		Get: credLabel,
	},
	{
		Name: "login_uid", Type: table.Uint, Extra: true, Doc: "User who logged in, as audit has it; missing if unset.",
		Get: func(c *linux.Cred) table.Value { return when(c.LoginUID != unset, unsigned(c.LoginUID)) },
	},
	{
		Name: "session", Type: table.Uint, Extra: true, Doc: "Login session, as audit has it; missing if unset.",
		Get: func(c *linux.Cred) table.Value { return when(c.SessionID != unset, unsigned(c.SessionID)) },
	},
	{Name: "user_ns", Type: table.Uint, Doc: "Inode of the user namespace.", Get: func(c *linux.Cred) table.Value { return unsigned(c.UserNS) }},
	{
		Name: "overridden", Type: table.Bool, Extra: true, Doc: "Whether it acts with other credentials for the moment.",
		Get: func(c *linux.Cred) table.Value { return table.BoolValue(c.Overridden) },
	},
	{
		Name: "cred", Type: table.Addr, Extra: true, Doc: "Address of the struct cred; tasks can share one.",
		Get: func(c *linux.Cred) table.Value { return address(c.Addr) },
	},
	{Name: "with_threads", Type: table.Bool, Option: true, Doc: "A line for every thread."},
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

const unset = ^uint32(0) // of audit's numbers

func capabilities(set uint64) table.Value { return table.ListValue(linux.CapabilityNames(set)) }

func credLabel(c *linux.Cred) table.Value {
	switch {
	case errors.Is(c.LabelErr, kobj.ErrUnsupported):
		return table.MissingBecause(table.Unsupported, c.LabelErr)
	case c.LabelErr != nil:
		return unreadable(c.LabelErr)
	}
	return text(c.Label)
}

func credentials(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*linux.Cred, error] {
	return func(yield func(*linux.Cred, error) bool) {
		reader := l.Linux.NewProcessReader()
		for t, err := range chosen(ctx, l, reader, r, r.Option("with_threads")) {
			var c *linux.Cred
			if err == nil {
				if c, err = reader.CredOf(t); c != nil {
					err = credLost(c, r)
				}
			}
			if !yield(c, ended(err)) {
				return
			}
		}
	}
}

// credLost is what could not be read of the wanted columns of c.
func credLost(c *linux.Cred, r table.Request) error {
	switch {
	case c.GroupsLost > 0 && r.Wants("groups"):
		return fmt.Errorf("groups of process %d: %w: %d are not shown", c.PID, kobj.ErrBroken, c.GroupsLost)
	case c.LabelErr != nil && r.Wants("label"):
		return fmt.Errorf("label of process %d: %w", c.PID, c.LabelErr)
	}
	return nil
}
