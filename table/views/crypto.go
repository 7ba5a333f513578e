package views

import (
	"context"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "crypto", Group: table.Machinery,
		Doc: `Show the algorithms of a guest's crypto API.

Each implementation that is registered, as /proc/crypto lists them, the last one
first. Code that registers an algorithm is reachable from programs through AF_ALG
sockets.`,
		Columns: cryptoColumns,
		Rows:    cryptoRows,
		Example: "lab:demo",
	}))
}

var cryptoColumns = slices.Concat([]table.Column{
	{Name: "name", Type: table.Text, Doc: "Algorithm."},
	{Name: "driver", Type: table.Text, Doc: "Implementation."},
	{Name: "module", Type: table.Text, Doc: "Module that it is in; kernel where it is built in."},
	{Name: "type", Type: table.Text, Doc: "Kind of algorithm: skcipher, shash, aead …; larval for one that is being looked for; missing where it is not known."},
	{Name: "priority", Type: table.Int, Doc: "The highest of a name is taken."},
	{Name: "refcount", Type: table.Int, Doc: "How many uses it has."},
	{Name: "selftest", Type: table.Text, Doc: "passed, or unknown."},
	{Name: "internal", Type: table.Text, Doc: "yes if only other algorithms may use it."},
	{Name: "block_size", Type: table.Size, Extra: true, Doc: "Size of a block in bytes."},
	{Name: "flags", Type: table.Addr, Extra: true, Doc: "Flags (CRYPTO_ALG_*), in hexadecimal."},
	{Name: "algorithm", Type: table.Addr, Extra: true, Doc: "Address of the struct crypto_alg."},
}, functionColumns("init", "the function that begins a use of it; missing if it has none"))

// cryptoTypes are the kinds by the functions that describe them in /proc/crypto.
var cryptoTypes = map[string]string{
	"crypto_skcipher_show": "skcipher", "crypto_lskcipher_show": "lskcipher", "crypto_aead_show": "aead", "crypto_shash_show": "shash",
	"crypto_ahash_show": "ahash", "crypto_akcipher_show": "akcipher", "crypto_kpp_show": "kpp", "crypto_rng_show": "rng",
	"crypto_scomp_show": "scomp", "crypto_acomp_show": "acomp", "crypto_sig_show": "sig",
}

func cryptoRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		owners, err := g.Linux.Owners()
		if err != nil {
			yield(nil, table.Failure(err))
			return
		}
		for a, err := range g.Linux.Algorithms(ctx) {
			var row table.Row
			if a != nil {
				row = cryptoRow(owners, a)
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

func cryptoRow(owners *linux.Owners, a *linux.Algorithm) table.Row {
	kind := text(cryptoTypes[owners.Of(a.Show).Symbol])
	const mask, cipher, compression = 0xf, 1, 2 // CRYPTO_ALG_TYPE_*
	switch {
	case a.Flags&linux.AlgorithmLarval != 0:
		kind = table.TextValue("larval")
	case a.Show == 0 && a.Flags&mask == cipher:
		kind = table.TextValue("cipher")
	case a.Show == 0 && a.Flags&mask == compression:
		kind = table.TextValue("compression")
	}
	module := a.Module
	if module == "" {
		module = "kernel"
	}
	choose := func(bit uint64, yes, no string) table.Value {
		if a.Flags&bit != 0 {
			return table.TextValue(yes)
		}
		return table.TextValue(no)
	}
	init, symbol, owner := function(owners, a.Init)
	return table.Row{
		table.TextValue(a.Name), table.TextValue(a.Driver), table.TextValue(module), kind, table.IntValue(int64(a.Priority)),
		table.IntValue(a.RefCount), choose(linux.AlgorithmTested, "passed", "unknown"), choose(linux.AlgorithmInternal, "yes", "no"),
		table.SizeValue(a.BlockSize), table.AddrValue(a.Flags), table.AddrValue(uint64(a.Addr)), init, symbol, owner,
	}
}
