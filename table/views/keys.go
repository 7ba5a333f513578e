package views

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "keys", Group: table.Kernel,
		Doc: `Show the keys that a guest's kernel holds.

The keys and keyrings of every user, of the kernel itself too, by serial number:
/proc/keys in the guest shows only those that its reader may see. What the keys keep
secret is not read.`,
		Columns: keysColumns,
		Rows:    keysRows,
		Example: "lab:demo",
	}))
}

var keysColumns = []table.Column{
	{Name: "serial", Type: table.Int, Doc: "Number of the key."},
	{Name: "type", Type: table.Text, Doc: "keyring, user, logon, asymmetric …"},
	{Name: "description", Type: table.Text, Doc: "Name, as its maker chose."},
	{Name: "uid", Type: table.Uint, Doc: "User who owns it, as numbered in the initial user namespace."},
	{Name: "gid", Type: table.Uint, Extra: true, Doc: "Group who owns it; 4294967295 for none."},
	{Name: "perm", Type: table.Text, Doc: "Permissions of possessor, owner, group and others, in hexadecimal, as in /proc/keys."},
	{Name: "usage", Type: table.Int, Extra: true, Doc: "References to it."},
	{Name: "expires", Type: table.Time, Doc: "When it expires, or was revoked; missing for one that stays."},
	{Name: "flags", Type: table.Text, Extra: true, Doc: "D dead, R revoked, Q in its owner's quota, U under construction, i invalidated; missing for none."},
	{Name: "quota", Type: table.Size, Extra: true, Doc: "Bytes charged to its owner."},
	{Name: "key", Type: table.Addr, Extra: true, Doc: "Address of the struct key."},
}

func keysRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for k, err := range g.Linux.Keys(ctx) {
			var row table.Row
			if k != nil {
				row = keyRow(k)
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

func keyRow(k *linux.Key) table.Row {
	expires := table.Missing(table.None)
	if !k.Expires.IsZero() {
		expires = table.TimeValue(k.Expires)
	}
	var flags strings.Builder
	for i, letter := range "DRQU i" { // KEY_FLAG_DEAD, REVOKED, IN_QUOTA, USER_CONSTRUCT, ROOT_CAN_CLEAR, INVALIDATED
		if k.Flags&(1<<i) != 0 && letter != ' ' {
			flags.WriteRune(letter)
		}
	}
	return table.Row{
		table.IntValue(int64(k.Serial)), text(k.Type), text(k.Description), table.UintValue(uint64(k.UID)), table.UintValue(uint64(k.GID)),
		table.TextValue(fmt.Sprintf("%08x", k.Perm)), table.IntValue(k.Usage), expires, text(flags.String()),
		table.SizeValue(uint64(k.Quota)), table.AddrValue(uint64(k.Addr)),
	}
}
