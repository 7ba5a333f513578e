package views

import (
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "keys", Group: table.Kernel,
		Doc: `Show the keys that a guest's kernel holds.

The keys and keyrings of every user, of the kernel itself too, by serial number:
/proc/keys in the guest shows only those that its reader may see. What the keys keep
secret is not read.`,
		Source:  "struct key, from the tree key_serial_tree",
		Key:     []string{"serial"},
		Example: "lab:demo",
	}, keysColumns, fromEachPartly((*linux.System).Keys)))
}

var keysColumns = table.Columns[linux.Key]{
	{Name: "serial", Type: table.Int, Doc: "Number of the key.", Get: func(k *linux.Key) table.Value { return integer(k.Serial) }},
	{Name: "type", Type: table.Text, Doc: "keyring, user, logon, asymmetric …", Get: func(k *linux.Key) table.Value { return text(k.Type) }},
	{Name: "description", Type: table.Text, Doc: "Name, as its maker chose.", Get: func(k *linux.Key) table.Value { return text(k.Description) }},
	{
		Name: "uid", Type: table.Uint, Doc: "User who owns it, as numbered in the initial user namespace.",
		Get: func(k *linux.Key) table.Value { return unsigned(k.UID) },
	},
	{
		Name: "gid", Type: table.Uint, Extra: true, Doc: "Group who owns it; 4294967295 for none.",
		Get: func(k *linux.Key) table.Value { return unsigned(k.GID) },
	},
	{
		Name: "perm", Type: table.Text, Doc: "Permissions of possessor, owner, group and others, in hexadecimal, as in /proc/keys.",
		Get: func(k *linux.Key) table.Value { return table.TextValue(fmt.Sprintf("%08x", k.Perm)) },
	},
	{Name: "usage", Type: table.Int, Extra: true, Doc: "References to it.", Get: func(k *linux.Key) table.Value { return integer(k.Usage) }},
	{
		Name: "expires", Type: table.Time, Doc: "When it expires, or was revoked; missing for one that stays.",
		Get: func(k *linux.Key) table.Value { return moment(k.Expires) },
	},
	{
		Name: "flags", Type: table.Text, Extra: true, Doc: "D dead, R revoked, Q in its owner's quota, U under construction, i invalidated; missing for none.",
		Get: keyFlags,
	},
	{Name: "quota", Type: table.Size, Extra: true, Doc: "Bytes charged to its owner.", Get: func(k *linux.Key) table.Value { return size(k.Quota) }},
	{Name: "key", Type: table.Addr, Extra: true, Doc: "Address of the struct key.", Get: func(k *linux.Key) table.Value { return address(k.Addr) }},
}

func keyFlags(k *linux.Key) table.Value {
	var flags strings.Builder
	for i, letter := range "DRQU i" { // KEY_FLAG_DEAD, REVOKED, IN_QUOTA, USER_CONSTRUCT, ROOT_CAN_CLEAR, INVALIDATED
		if k.Flags&(1<<i) != 0 && letter != ' ' {
			flags.WriteRune(letter)
		}
	}
	return text(flags.String())
}
