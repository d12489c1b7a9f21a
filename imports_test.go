package embedlog_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/x/embedlog"

// rank places each package that ships. A package imports only packages of a
// lower rank: nothing points up, and siblings do not know each other. A package
// that is not here (tests' helpers, tools) may not be imported by one that is.
var rank = map[string]int{
	module + "/internal/invariant": 0,
	module + "/internal/acl":       0,
	module + "/internal/scram":     0,
	module + "/internal/wire":      0,
	module + "/internal/seed":      0, // constants, but for the build that holds bugs on purpose
	module + "/compress":           0,
	module + "/internal/vfs":       1,
	module + "/log":                2,
	module + "/partition":          3,
	module + "/internal/backup":    3,
	module + "/internal/engine":    4,
	module + "/internal/dump":      4,
	module + "/internal/kafkafile": 4,
	module + "/internal/sock":      3, // frames and the socket; who serves it is above
	module + "/internal/views":     4, // what package query offers to the socket
	module:                         5,
	module + "/codec":              6,
	module + "/kafka":              6,
	module + "/raftrepl":           6,
	module + "/query":              7, // its defaults are package codec's
}

// allowed are the modules that a program takes on with embedlog.
var allowed = []string{
	module,
	"github.com/klauspost/compress",
	"github.com/pierrec/lz4/v4",
	"golang.org/x/sys",
}

// only are modules that arrive with one package alone.
var only = map[string][]string{
	module + "/kafka": {"github.com/twmb/franz-go/pkg/kmsg"},
	module + "/query": {"github.com/tidwall/btree"},
	module + "/raftrepl": {
		"github.com/hashicorp/raft", "github.com/hashicorp/raft-boltdb/v2", "go.etcd.io/bbolt", "github.com/boltdb/bolt",
		"github.com/hashicorp/go-hclog", "github.com/hashicorp/go-metrics", "github.com/armon/go-metrics", "github.com/hashicorp/go-msgpack/v2",
		"github.com/hashicorp/go-immutable-radix", "github.com/hashicorp/golang-lru",
		"github.com/fatih/color", "github.com/mattn/go-colorable", "github.com/mattn/go-isatty",
	},
}

// Dependencies differ by system, so each one we build for is asked.
var systems = []string{"linux", "darwin", "windows"}

func TestImportsAreFewAndPointOneWay(t *testing.T) {
	var shipped []string
	for pkg := range rank {
		if pkg == module && !rootHasCode(t) {
			continue // the root is a test alone so far: there is nothing to import
		}
		shipped = append(shipped, pkg)
	}
	for _, system := range systems {
		for _, pkg := range shipped {
			for _, dep := range deps(t, system, pkg) {
				if why := refuse(pkg, dep); why != "" {
					t.Errorf("GOOS=%s: %s depends on %s: %s", system, pkg, dep, why)
				}
			}
		}
	}
}

// The rule itself, on imports that nobody has written.
func TestImportRule(t *testing.T) {
	for _, row := range []struct {
		name, pkg, dep string
		ok             bool
	}{
		{"log may use vfs", module + "/log", module + "/internal/vfs", true},
		{"a package is in its own list", module + "/log", module + "/log", true},
		{"partition may use log", module + "/partition", module + "/log", true},
		{"log must not look up", module + "/log", module + "/partition", false},
		{"vfs must not look up", module + "/internal/vfs", module + "/log", false},
		{"siblings", module + "/compress", module + "/internal/invariant", false},
		{"helpers of tests do not ship", module + "/log", module + "/internal/vfs/vfstest", false},
		{"codec", module + "/compress", "github.com/klauspost/compress/zstd", true},
		{"module itself", module + "/compress", "github.com/pierrec/lz4/v4", true},
		{"another version is another module", module + "/compress", "github.com/pierrec/lz4/v3", false},
		{"a name that only begins alike", module + "/compress", "github.com/klauspost/compressor", false},
		{"x/sys", module + "/internal/vfs", "golang.org/x/sys/unix", true},
		{"the rest of x", module + "/log", "golang.org/x/net/http2", false},
		{"kmsg comes with kafka", module + "/kafka", "github.com/twmb/franz-go/pkg/kmsg", true},
		{"and with nothing else", module, "github.com/twmb/franz-go/pkg/kmsg", false},
		{"a client does not", module + "/kafka", "github.com/twmb/franz-go/pkg/kgo", false},
		{"web code", module + "/log", "github.com/hashicorp/raft", false},
	} {
		if why := refuse(row.pkg, row.dep); (why == "") != row.ok {
			t.Errorf("%s: refuse(%s, %s) = %q, want ok %t", row.name, row.pkg, row.dep, why, row.ok)
		}
	}
}

// refuse says why pkg may not depend on dep, which is outside the standard
// library, or nothing.
func refuse(pkg, dep string) string {
	known := false
	for _, m := range append(slices.Clone(allowed), only[pkg]...) {
		known = known || dep == m || strings.HasPrefix(dep, m+"/")
	}
	if !known {
		return "only " + strings.Join(allowed, ", ") + " and the standard library are taken on"
	}
	if dep == pkg || dep != module && !strings.HasPrefix(dep, module+"/") {
		return ""
	}
	r, ok := rank[dep]
	switch {
	case !ok:
		return "it has no place in the table of packages that ship"
	case r >= rank[pkg]:
		return "imports point one way, to a lower rank"
	}
	return ""
}

// deps returns what pkg depends on, itself included, without the standard library.
func deps(t *testing.T, system, pkg string) []string {
	t.Helper()
	out := goList(t, system, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg)
	list := strings.Fields(out)
	if len(list) == 0 || list[len(list)-1] != pkg {
		t.Fatalf("go list -deps %s does not end with the package itself: %q", pkg, out)
	}
	return list
}

// rootHasCode reports whether the root is a package that can be imported.
func rootHasCode(t *testing.T) bool {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, "_test.go") {
			return true
		}
	}
	return false
}

func goList(t *testing.T, system string, args ...string) string {
	t.Helper()
	// go test puts its own toolchain first in PATH.
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("GOOS=%s go list %s: %v\n%s", system, strings.Join(args, " "), err, &stderr)
	}
	return string(out)
}
