package guests

import (
	_ "embed"
	"encoding/base64"
	"os/exec"
	"regexp"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// nftRuleset has every kind of rule that outsight puts into words.
//
//go:embed nft/ruleset.nft
var nftRuleset []byte

// nftHooks are base chains in many places; nftHooksElsewhere those of another network
// namespace.
//
//go:embed nft/hooks.nft
var nftHooks []byte

const nftHooksElsewhere = `table inet elsewhere {
	chain input { type filter hook input priority 5; policy accept; }
}
table netdev elsewhere {
	chain in { type filter hook ingress device "dummy0" priority 1; policy accept; }
}
`

// nftRulesetModules are what nftRuleset needs beyond NFTModules.
var nftRulesetModules = []string{"nft_redir", "nft_nat", "nft_limit", "nft_quota", "nft_fib_inet", "nft_numgen", "nft_objref", "nft_connlimit", "nft_queue"}

// nftFiles put the host's nft with its libraries into a guest, as /nft; none where the host
// has no nft.
func nftFiles(t testing.TB) map[string]string {
	t.Helper()
	nft, err := exec.LookPath("nft")
	if err != nil {
		return nil
	}
	files := map[string]string{"/nft": nft}
	for _, path := range librariesOf(t, nft) {
		files[path] = path
	}
	return files
}

// librariesOf are the files that a program of the host is linked with.
func librariesOf(t testing.TB, program string) []string {
	t.Helper()
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`/\S+`).FindAllString(string(out), -1)
}

// LoadNFT loads a ruleset of every kind into a guest of [UpServer], unless it is there.
func LoadNFT(t testing.TB, g *lab.Guest) {
	t.Helper()
	labtest.NeedTool(t, "nft")
	// Without /etc/protocols nft writes numbers where it has names else.
	const script = `nft=/nft; [ -x $nft ] || nft=nft
$nft list tables | grep -q 'table inet filter' && exit 0
[ -e /etc/protocols ] || printf 'icmp 1\nigmp 2\ntcp 6\nudp 17\nipv6-icmp 58\n' > /etc/protocols
base64 -d > /tmp/ruleset.nft && $nft -f /tmp/ruleset.nft`
	labtest.Output(t, g, "echo "+base64.StdEncoding.EncodeToString(nftRuleset)+" | { "+script+"; }")
}

// LoadHooks loads base chains of every family besides, unless they are there, in the network
// namespace of the test and in that of the server's which has a name.
func LoadHooks(t testing.TB, g *lab.Guest) {
	t.Helper()
	const script = `nft=/nft; [ -x $nft ] || nft=/usr/sbin/nft
$nft list tables | grep -q 'table inet outsight' && exit 0
base64 -d > /tmp/hooks.nft && $nft -f /tmp/hooks.nft && nsenter --net=/run/netns/outsight $nft -f /tmp/elsewhere.nft`
	encode := func(b []byte) string { return "echo " + base64.StdEncoding.EncodeToString(b) + " | " }
	labtest.Output(t, g, encode([]byte(nftHooksElsewhere))+"base64 -d > /tmp/elsewhere.nft; "+encode(nftHooks)+"{ "+script+"; }")
}
