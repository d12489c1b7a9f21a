package backup

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

// What lies in a directory that is no backup stays as it is, and nothing comes beside it.
func TestDestinationOfSomebodyElse(t *testing.T) {
	const segment = objectsName + "/0123456789abcdef-00000000000000000000-0123456789abcdef-100"
	tests := map[string]struct {
		files []string
		ok    bool
	}{
		"nothing":                         {nil, true},
		"the system's":                    {[]string{".hidden", "lost+found/x"}, true},
		"a backup that was stopped":       {[]string{lockName, manifestName + tmpSuffix, segment, segment + tmpSuffix}, true},
		"a backup whose manifest is torn": {[]string{lockName, manifestName, segment}, true},
		"a file":                          {[]string{"letter.txt"}, false},
		"a database":                      {[]string{"FORMAT", lockName, "meta/x"}, false},
		"objects of another kind":         {[]string{objectsName + "/photo.jpg"}, false},
		"a directory in objects":          {[]string{segment, objectsName + "/ab/cdef"}, false},
		"somebody else's file BACKUP":     {[]string{manifestName}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSource(t)
			s.append(t, 3)
			src, _ := s.capture(t)
			dst := vfs.NewMem()
			for _, file := range tt.files {
				put(t, dst, file)
			}
			_, err := Write(t.Context(), dst, src, nil)
			if tt.ok {
				must(t, err)
				return
			}
			if !errors.Is(err, ErrNotEmpty) {
				t.Fatalf("got %v, want ErrNotEmpty", err)
			}
			for _, file := range tt.files {
				if info, err := dst.Stat(file); err != nil || info.Size != 4 {
					t.Errorf("%s: %+v, %v; it was changed", file, info, err)
				}
			}
			infos, err := dst.List(".")
			must(t, err)
			for _, info := range infos {
				if info.Name == lockName || info.Name == objectsName {
					if _, there := find(tt.files, info.Name); !there {
						t.Errorf("%s was made", info.Name)
					}
				}
			}
		})
	}
}

// Who keeps a file beside the objects of a backup keeps it.
func TestSweepTakesObjectsOnly(t *testing.T) {
	s := newSource(t)
	s.append(t, 3)
	src, _ := s.capture(t)
	dst := vfs.NewMem()
	_, err := Write(t.Context(), dst, src, nil)
	must(t, err)
	put(t, dst, objectsName+"/notes.txt")
	const old = objectsName + "/0123456789abcdef-00000000000000000000-0123456789abcdef-100"
	put(t, dst, old)
	src, _ = s.capture(t)
	_, err = Write(t.Context(), dst, src, nil)
	must(t, err)
	if _, err := dst.Stat(objectsName + "/notes.txt"); err != nil {
		t.Error(err)
	}
	if _, err := dst.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an object that nothing needs is still there: %v", err)
	}
}

// put makes a file of four bytes, and its directory.
func put(t testing.TB, fsys vfs.FS, file string) {
	t.Helper()
	for i := range file {
		if file[i] == '/' {
			if err := fsys.Mkdir(file[:i]); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Fatal(err)
			}
		}
	}
	must(t, writeNew(fsys, file, []byte("mine")))
}

// find looks for a file of that name, or in a directory of that name.
func find(files []string, name string) (string, bool) {
	for _, file := range files {
		if file == name || len(file) > len(name) && file[:len(name)+1] == name+"/" {
			return file, true
		}
	}
	return "", false
}
