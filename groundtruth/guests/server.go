package guests

import (
	"embed"
	"errors"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// ServerModules are what the acts of groundtruth/guests/server need beyond a bare kernel; one of
// them has parameters. Kernels that have one built in are not bothered. libcrc32c asks for
// the first ones by what they do.
var ServerModules = []string{
	"crc32c_generic", "crc32c_cryptoapi",
	"dummy numdummies=1", "veth", "bridge", "tun", "vsock", "vsock_loopback", "loop max_loop=8", "zram num_devices=1", "lzo_rle",
	"overlay", "binfmt_misc", "algif_hash", "algif_skcipher", "aes_generic", "cbc", "sch_ingress", "cls_bpf",
	"act_bpf", "cls_matchall", "sch_prio", "8021q", "macvlan", "virtio_net",
	"tcp_diag", "udp_diag", "raw_diag", "unix_diag", "netlink_diag", "af_packet_diag", "vsock_diag", "xsk_diag", "mptcp_diag",
	"crypto_user",
	"iptable_filter", "iptable_mangle", "iptable_raw", "iptable_nat", "ip6table_filter", "arptable_filter", "br_netfilter", "nfnetlink_hook",
}

// NFTModules are what the nft tables of a Debian server need. A Debian guest has no modules on its disk
// that nft could load by itself.
var NFTModules = []string{"nf_tables", "nft_objref", "nft_counter", "nft_ct", "nft_chain_nat", "nft_masq", "nft_log", "nf_log_syslog", "nf_log_ipv4", "nf_log_ipv6", "nft_reject_inet", "nf_conntrack", "nft_flow_offload", "nf_flow_table_inet"}

// debianFiles make a Debian guest into a server with systemd's means: firewall, web
// server, container, SSH session.
//
//go:embed debian
var debianFiles embed.FS

// debianPaths are where they belong in the guest.
var debianPaths = map[string]string{
	"nftables.conf":     "/etc/nftables.conf",
	"server.conf":       "/etc/systemd/system/multi-user.target.d/server.conf",
	"web.service":       "/etc/systemd/system/web.service",
	"container.service": "/etc/systemd/system/container.service",
	"session.service":   "/etc/systemd/system/session.service",
}

// UpServer boots a guest that is busy in every way (see groundtruth/guests/server), with /truth in
// it (see groundtruth/guests/truth). A Debian guest gets services of systemd besides.
func UpServer(t testing.TB, o lab.Options) *lab.Guest {
	t.Helper()
	labtest.NeedQEMU(t)
	g := labtest.Up(t, ServerOptions(t, o))
	if o.Userland == lab.Debian {
		awaitServices(t, g)
	}
	StartServer(t, g)
	return g
}

// ServerOptions are o with all that such a guest needs.
func ServerOptions(t testing.TB, o lab.Options) lab.Options {
	t.Helper()
	o.Files = maps.Clone(o.Files)
	if o.Files == nil {
		o.Files = map[string]string{}
	}
	o.Files["/server"], o.Files["/truth"] = Program(t, "server"), Program(t, "truth")
	o.Modules = slices.Concat(o.Modules, ServerModules)
	if o.Userland == lab.Debian {
		labtest.NeedTool(t, "mmdebstrap")
		o.Modules = append(o.Modules, NFTModules...)
		maps.Copy(o.Files, embeddedFiles(t, debianFiles, "debian", debianPaths, 0o644))
	} else if files := nftFiles(t); files != nil {
		o.Modules = slices.Concat(o.Modules, NFTModules, nftRulesetModules)
		maps.Copy(o.Files, files)
	}
	maps.Copy(o.Files, zshFiles(t, o.Userland != lab.Debian))
	maps.Copy(o.Files, shellFiles(t, o.Userland != lab.Debian))
	return o
}

// awaitServices waits until what systemd starts is there, and works: a page of the web
// server, a login over SSH.
func awaitServices(t testing.TB, g *lab.Guest) {
	t.Helper()
	const wait = `for try in $(seq 300); do
	# One that is active is enough for is-active, if it is asked for all of them.
	ready=; for unit in nftables web container session; do systemctl is-active --quiet $unit || ready=no; done
	pgrep -f '^sleep 1000000' >/dev/null && [ -z "$ready" ] &&
		[ "$(busybox wget -q -O - http://127.0.0.1:8080/)" = hello ] && exit 0
	sleep 1
done
systemctl status --no-pager nftables web container session >&2
exit 1`
	if _, err := g.Output(t.Context(), wait); err != nil {
		t.Fatal(errors.Join(errors.New("the services did not get ready"), err))
	}
}

// embeddedFiles writes files of folder into a folder of the test, for Options.Files: paths
// are where they belong in the guest, by name.
func embeddedFiles(t testing.TB, files embed.FS, folder string, paths map[string]string, perm os.FileMode) map[string]string {
	t.Helper()
	dir, written := t.TempDir(), map[string]string{}
	for name, guest := range paths {
		data, err := files.ReadFile(path.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		written[guest] = filepath.Join(dir, name)
		if err := os.WriteFile(written[guest], data, perm); err != nil {
			t.Fatal(err)
		}
	}
	return written
}

// StartServer starts the server in a guest that has it, with arguments for it, waits until it is ready, and gives
// what it could not do: lines "skipped: ACT: why".
func StartServer(t testing.TB, g *lab.Guest, args ...string) string {
	t.Helper()
	start := "/server " + strings.Join(args, " ") + ` >/run/server.log 2>&1 &
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
