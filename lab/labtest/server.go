package labtest

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
)

// ServerModules are what the acts of lab/guest/server need beyond a bare kernel; one of
// them has parameters. Kernels that have one built in are not bothered.
var ServerModules = []string{
	"dummy numdummies=1", "veth", "bridge", "tun", "vsock", "vsock_loopback", "loop max_loop=8", "zram num_devices=1", "lzo_rle",
	"overlay", "binfmt_misc", "algif_hash", "algif_skcipher", "aes_generic", "cbc", "sch_ingress", "cls_bpf",
	"tcp_diag", "udp_diag", "raw_diag", "unix_diag", "netlink_diag",
}

// NFTModules are what a small nft table needs. A Debian guest has no modules on its disk
// that nft could load by itself.
var NFTModules = []string{"nf_tables", "nft_counter", "nft_ct", "nft_chain_nat", "nft_masq", "nft_log", "nft_reject_inet", "nf_conntrack"}

// UpServer boots a guest that is busy in every way (see lab/guest/server), with /truth in
// it (see lab/guest/truth).
func UpServer(t testing.TB, o lab.Options) *lab.Guest {
	t.Helper()
	NeedQEMU(t)
	o.Files = maps.Clone(o.Files)
	if o.Files == nil {
		o.Files = map[string]string{}
	}
	o.Files["/server"], o.Files["/truth"] = Program(t, "server"), Program(t, "truth")
	o.Modules = slices.Concat(o.Modules, ServerModules)
	g := Up(t, o)
	StartServer(t, g)
	return g
}

// StartServer starts the server in a guest that has it, waits until it is ready, and gives
// what it could not do: lines "skipped: ACT: why".
func StartServer(t testing.TB, g *lab.Guest) string {
	t.Helper()
	start := `/server >/run/server.log 2>&1 &
until grep -qx ready /run/server.log; do
	kill -0 $! || { cat /run/server.log >&2; exit 1; }
	sleep 0.2
done
grep '^skipped: ' /run/server.log || :`
	out, err := g.Output(t.Context(), start)
	if err != nil {
		t.Fatal(errors.Join(errors.New("the server did not get ready"), err))
	}
	return string(out)
}
