package sql

import "testing"

func TestSingle(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "select 1": true, "select 1;": true, "select 1; -- two": true, "select 1; /* ; */ ;": true, "-- a; b\nselect 1": true,
		"select ';', \"a;b\", `;`, [;]": true, "select 'it''s; fine'": true, "select ';": true, "/* open": true,
		"select 1; select 2": false, "select 1;x": false, "select ''; select 1": false, ";select 1": false,
	} {
		if single(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

func FuzzSingle(f *testing.F) {
	f.Add("select ';' -- ;\n; /* ; */")
	f.Fuzz(func(t *testing.T, text string) {
		if !single(text) && single("-- "+text[:1]+"\n"+text) {
			t.Errorf("%q: a comment before it changes it", text)
		}
	})
}
