package lab

import (
	"reflect"
	"strings"
	"testing"
)

const deb822Sources = `# the main archive
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security/
Suites: trixie-security
Components: main

Types: deb
URIs: https://vendor.example/linux/debian-trixie
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
Enabled: no
URIs: http://other.example/debian
Suites: sid
Components: main
`

func TestParseDeb822(t *testing.T) {
	all := parseDeb822([]byte(deb822Sources))
	if len(all) != 3 {
		t.Fatalf("%d sources: %+v", len(all), all)
	}
	m, err := chooseMirror(all)
	if err != nil {
		t.Fatal(err)
	}
	want := source{
		uris: []string{"http://mirror.example/debian"}, suites: []string{"trixie", "trixie-updates"},
		components: []string{"main", "contrib"}, signedBy: "/usr/share/keyrings/debian-archive-keyring.gpg",
	}
	if !reflect.DeepEqual(m.main, want) {
		t.Errorf("main archive: %+v", m.main)
	}
	if m.security == nil || m.security.uris[0] != "http://mirror.example/debian-security/" {
		t.Errorf("security archive: %+v", m.security)
	}
	// An embedded key must survive being written and read again.
	again := parseDeb822([]byte(all[2].deb822("trixie")))
	if len(again) != 1 || again[0].signedBy != all[2].signedBy {
		t.Errorf("embedded key changed: %+v", again)
	}
}

func TestParseOneLine(t *testing.T) {
	all := parseOneLine([]byte(`
# deb http://commented.example/debian sid main
deb-src http://mirror.example/debian bookworm main
deb http://mirror.example/debian bookworm main non-free # why not
deb [arch=amd64 signed-by=/k.gpg trusted=yes] https://docker.example/linux/debian bookworm stable
deb [broken http://mirror.example/debian bookworm main
deb http://mirror.example/debian
`))
	if len(all) != 2 || all[1].signedBy != "/k.gpg" || !all[1].trusted || len(all[0].components) != 2 {
		t.Fatalf("%+v", all)
	}
	m, err := chooseMirror(all)
	if err != nil || m.main.uris[0] != "http://mirror.example/debian" || m.security != nil {
		t.Fatalf("%+v, %v", m, err)
	}
	if _, err := chooseMirror(all[1:]); err == nil || !strings.Contains(err.Error(), "OUTSIGHT_LAB_MIRROR") {
		t.Fatalf("a machine without Debian's archive: %v", err)
	}
}

func TestCompareVersions(t *testing.T) {
	ascending := []string{
		"1.0~rc1-1", "1.0-1", "1.0-1+b1", "1.0.1-1", "1.2-1", "1.10-1", "5.10.9-1", "5.10.262-1",
		"6.1.99-1", "6.1.192-2", "6.12.9-1~bpo12+1", "6.12.9-1", "6.12.117-1", "7.2.13-1", "1:0.1-1",
	}
	for i, a := range ascending {
		for j, b := range ascending {
			if got, want := compareVersions(a, b), sign(i-j); got != want {
				t.Errorf("compare %s with %s: %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestSeriesOf(t *testing.T) {
	for version, want := range map[string]string{
		"6.12.117-1": "6.12", "7.2~rc3-1~exp1": "7.2", "5.10.262-1": "5.10", "6.1": "6.1", "none": "", "1:6.1.2-3": "6.1",
	} {
		if got := seriesOf(version); got != want {
			t.Errorf("series of %s: %q, want %q", version, got, want)
		}
	}
}

func TestFirstDepends(t *testing.T) {
	got := firstDepends("linux-binary-7.2.13+deb14-cloud-amd64 (= 7.2.13-1) | linux-binary-unsigned-7.2.13+deb14-cloud-amd64, linux-modules-7.2.13+deb14-cloud-amd64:amd64, ")
	want := []string{"linux-binary-7.2.13+deb14-cloud-amd64", "linux-modules-7.2.13+deb14-cloud-amd64"}
	if !reflect.DeepEqual(got, want) {
		t.Error(got)
	}
}

func FuzzAptSources(f *testing.F) {
	f.Add([]byte(deb822Sources), "6.1.0-56", "6.1.0-9~a")
	f.Add([]byte("deb [a=b] http://x/debian sid main\n"), "1:2", "~")
	f.Fuzz(func(t *testing.T, text []byte, v1, v2 string) {
		for _, s := range append(parseOneLine(text), parseDeb822(text)...) {
			if len(s.uris) == 0 || len(s.suites) == 0 {
				t.Fatalf("a source of nothing: %+v", s)
			}
		}
		chooseMirror(parseDeb822(text))
		for s := range stanzas(strings.NewReader(string(text))) {
			firstDepends(s["depends"])
		}
		if compareVersions(v1, v2) != -compareVersions(v2, v1) {
			t.Fatalf("versions %q and %q have no order", v1, v2)
		}
	})
}
