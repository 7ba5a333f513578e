package views

import (
	"cmp"
	"slices"

	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "crypto", Group: table.Internals,
		Doc: `Show the algorithms of a guest's crypto API.

Each implementation that is registered, as /proc/crypto lists them, the last one
first. Code that registers an algorithm is reachable from programs through AF_ALG
sockets.`,
		Source:  "crypto_alg_list: struct crypto_alg",
		Key:     []string{"name", "driver"},
		Example: "lab:demo",
	}, cryptoColumns, eachPartly(of(hooks.Algorithms))))
}

func cryptoColumns() table.Columns[owned[hooks.Algorithm]] {
	return slices.Concat(
		plain(table.Columns[hooks.Algorithm]{
			{Name: "name", Type: table.Text, Doc: "Algorithm.", Get: func(a *hooks.Algorithm) table.Value { return table.TextValue(a.Name) }},
			{Name: "driver", Type: table.Text, Doc: "Implementation.", Get: func(a *hooks.Algorithm) table.Value { return table.TextValue(a.Driver) }},
			{
				Name: "module", Type: table.Text, Doc: "Module that it is in; kernel where it is built in.",
				Get: func(a *hooks.Algorithm) table.Value { return table.TextValue(cmp.Or(a.Module, "kernel")) },
			},
		}),
		table.Columns[owned[hooks.Algorithm]]{
			{
				Name: "type", Type: table.Text, Doc: "Kind of algorithm: skcipher, shash, aead …; larval for one that is being looked for; missing where it is not known.",
				Get: func(o *owned[hooks.Algorithm]) table.Value { return algorithmType(o) },
			},
		},
		plain(table.Columns[hooks.Algorithm]{
			{Name: "priority", Type: table.Int, Doc: "The highest of a name is taken.", Get: func(a *hooks.Algorithm) table.Value { return integer(a.Priority) }},
			{Name: "refcount", Type: table.Int, Doc: "How many uses it has.", Get: func(a *hooks.Algorithm) table.Value { return integer(a.RefCount) }},
			{
				Name: "selftest", Type: table.Text, Doc: "passed, or unknown.",
				Get: func(a *hooks.Algorithm) table.Value {
					return algorithmFlag(a, hooks.AlgorithmTested, "passed", "unknown")
				},
			},
			{
				Name: "internal", Type: table.Text, Doc: "yes if only other algorithms may use it.",
				Get: func(a *hooks.Algorithm) table.Value { return algorithmFlag(a, hooks.AlgorithmInternal, "yes", "no") },
			},
			{
				Name: "block_size", Type: table.Size, Extra: true, Doc: "Size of a block in bytes.",
				Get: func(a *hooks.Algorithm) table.Value { return size(a.BlockSize) },
			},
			{
				Name: "flags", Type: table.Addr, Extra: true, Doc: "Flags (CRYPTO_ALG_*), in hexadecimal.",
				Get: func(a *hooks.Algorithm) table.Value { return table.AddrValue(a.Flags) },
			},
			{
				Name: "algorithm", Type: table.Addr, Extra: true, Doc: "Address of the struct crypto_alg.",
				Get: func(a *hooks.Algorithm) table.Value { return address(a.Addr) },
			},
		}),
		code("init", "the function that begins a use of it; missing if it has none", func(a *hooks.Algorithm) virt.Addr { return a.Init }),
	)
}

// cryptoTypes are the kinds by the functions that describe them in /proc/crypto.
var cryptoTypes = map[string]string{
	"crypto_skcipher_show": "skcipher", "crypto_lskcipher_show": "lskcipher", "crypto_aead_show": "aead", "crypto_shash_show": "shash",
	"crypto_ahash_show": "ahash", "crypto_akcipher_show": "akcipher", "crypto_kpp_show": "kpp", "crypto_rng_show": "rng",
	"crypto_scomp_show": "scomp", "crypto_acomp_show": "acomp", "crypto_sig_show": "sig",
}

func algorithmType(o *owned[hooks.Algorithm]) table.Value {
	const mask, cipher, compression = 0xf, 1, 2 // CRYPTO_ALG_TYPE_*
	switch a := o.it; {
	case a.Flags&hooks.AlgorithmLarval != 0:
		return table.TextValue("larval")
	case a.Show == 0 && a.Flags&mask == cipher:
		return table.TextValue("cipher")
	case a.Show == 0 && a.Flags&mask == compression:
		return table.TextValue("compression")
	default:
		return text(cryptoTypes[o.of(a.Show).Symbol])
	}
}

func algorithmFlag(a *hooks.Algorithm, flag uint64, yes, no string) table.Value {
	if a.Flags&flag != 0 {
		return table.TextValue(yes)
	}
	return table.TextValue(no)
}
