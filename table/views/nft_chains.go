package views

import (
	"context"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/netfilter"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "nft_chains", Group: table.Network,
		Doc: `Show the chains of nf_tables.

All tables of all network namespaces are shown with their chains; base chains, to which
packets come by themselves, with their hook. How many rules are listed and how many run
are read from different places, and equal in a healthy kernel. What is not seen: tables
without chains; anything of a kernel before 5.11, which keeps no description of
nf_tables' structures.`,
		Source:  "nf_tables of every network namespace: nft_table, nft_chain, nft_base_chain",
		Key:     []string{"net_ns", "family", "table", "chain"},
		Of:      inNetwork,
		Example: "lab:demo",
	}, nftChainColumns, nftChains))
}

func nftChainColumns() table.Columns[nftChain] {
	return slices.Concat(
		nftPlace(func(c *nftChain) *netfilter.Table { return c.Table }),
		table.Columns[nftChain]{
			{Name: "chain", Type: table.Text, Doc: "Name of the chain.", Get: func(c *nftChain) table.Value { return table.TextValue(c.Name) }},
			{
				Name: "type", Type: table.Text, Doc: "filter, nat, route; missing for a chain that only rules lead to.",
				Get: func(c *nftChain) table.Value { return text(c.Type) },
			},
			{
				Name: "hook", Type: table.Text, Doc: "prerouting, input, forward, output, postrouting, ingress, egress.",
				Get: func(c *nftChain) table.Value { return text(c.Hook) },
			},
			{
				Name: "priority", Type: table.Int, Doc: "Priority among the functions of the hook: the lowest runs first.",
				Get: func(c *nftChain) table.Value { return when(c.Base, integer(c.Priority)) },
			},
			{
				Name: "policy", Type: table.Text, Doc: "What becomes of packets that no rule decides on: accept, drop.",
				Get: func(c *nftChain) table.Value { return text(c.Policy) },
			},
			{Name: "devices", Type: table.List, Extra: true, Doc: "Devices of ingress and egress.", Get: func(c *nftChain) table.Value { return list(c.Devices) }},
			{Name: "rules", Type: table.Uint, Doc: "How many rules are listed.", Get: func(c *nftChain) table.Value { return unsigned(c.listed) }},
			{Name: "running", Type: table.Uint, Doc: "How many rules the kernel runs.", Get: func(c *nftChain) table.Value { return unsigned(c.running) }},
			{Name: "handle", Type: table.Uint, Extra: true, Doc: "Its number in the table.", Get: func(c *nftChain) table.Value { return unsigned(c.Handle) }},
			{Name: "table_handle", Type: table.Uint, Extra: true, Doc: "The table's number.", Get: func(c *nftChain) table.Value { return unsigned(c.Table.Handle) }},
			{
				Name: "dormant", Type: table.Bool, Extra: true, Doc: "Whether the table is switched off.",
				Get: func(c *nftChain) table.Value { return table.BoolValue(c.Table.Flags&nftDormant != 0) },
			},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the nft_chain.", Get: func(c *nftChain) table.Value { return address(c.Addr) }},
		},
	)
}

const nftDormant = 1 // NFT_TABLE_F_DORMANT

// nftChain is a row of nft_chains.
type nftChain struct {
	*netfilter.Chain
	listed, running int
}

func nftChains(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*nftChain, error] {
	count := r.Wants("rules", "running")
	return func(yield func(*nftChain, error) bool) {
		for c, err := range ending(whole(netfilter.Chains(ctx, l.Linux))) {
			var row *nftChain
			if c != nil {
				row = &nftChain{Chain: c}
				if count {
					row.listed, row.running = c.Rules()
				}
			}
			if !yield(row, err) {
				return
			}
		}
	}
}
