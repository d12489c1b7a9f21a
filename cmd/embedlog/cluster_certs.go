package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/x/embedlog/raftrepl"
)

const (
	caCertName = "ca.pem"
	caKeyName  = "ca-key.pem"
)

func (a *app) clusterCerts() *cobra.Command {
	return parent("certs", "Make the certificates by which nodes know each other", a.certsInit(), a.certsIssue())
}

func (a *app) certsInit() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "init CLUSTER",
		Short: "Make the authority of a cluster: ca.pem and ca-key.pem",
		Long: `init makes the authority of a cluster: ca.pem, which every node has, and
ca-key.pem, which is the secret of the cluster: whoever has it can make a node.
It is needed by issue alone, and best kept on none of the nodes.`,
		Example: `  embedlog cluster certs init shop --dir certs`,
		Args:    takes(1, 1, "the cluster's name"),
		RunE: func(_ *cobra.Command, args []string) error {
			ca, err := raftrepl.NewCA(args[0])
			if err != nil {
				return usagef("%w", err)
			}
			key, err := ca.KeyPEM()
			if err != nil {
				return err
			}
			files, err := writeNew(dir, pemFile{caKeyName, key, 0o600}, pemFile{caCertName, ca.CertPEM(), 0o644})
			if err != nil {
				return err
			}
			return a.madeFiles(args[0], 0, files)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "where the files go")
	return cmd
}

func (a *app) certsIssue() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "issue NODE...",
		Short: "Make certificate and key of nodes: node-N.pem and node-N-key.pem",
		Long: `issue makes a certificate and a key for each node, signed by the authority that
lies in --dir. A certificate holds two years; another one may be made at any
time, and the old one works to its end.`,
		Example: `  embedlog cluster certs issue 1 2 3 --dir certs`,
		Args:    takes(1, -1, "a node's number"),
		RunE: func(_ *cobra.Command, args []string) error {
			ca, err := loadCA(dir)
			if err != nil {
				return err
			}
			var nodes []int32
			for _, s := range args {
				node, err := parseNode(s)
				if err != nil {
					return err
				}
				nodes = append(nodes, node)
			}
			for _, node := range nodes {
				cert, key, err := ca.Issue(node)
				if err != nil {
					return err
				}
				files, err := writeNew(dir, pemFile{fmt.Sprintf("node-%d-key.pem", node), key, 0o600}, pemFile{fmt.Sprintf("node-%d.pem", node), cert, 0o644})
				if err == nil {
					err = a.madeFiles(ca.Cluster(), node, files)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "where ca.pem and ca-key.pem are, and the files go")
	return cmd
}

func (a *app) madeFiles(cluster string, node int32, files []string) error {
	if a.asJSON() {
		return a.json(struct {
			Cluster string   `json:"cluster"`
			Node    int32    `json:"node,omitempty"`
			Files   []string `json:"files"`
		}{cluster, node, files})
	}
	for _, f := range files {
		if err := a.say("%s", f); err != nil {
			return err
		}
	}
	return nil
}

func loadCA(dir string) (*raftrepl.CA, error) {
	var text [2][]byte
	for i, name := range []string{caCertName, caKeyName} {
		var err error
		text[i], err = os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, notFoundf("%s: no such file; `embedlog cluster certs init` makes the authority", filepath.Join(dir, name))
		}
		if err != nil {
			return nil, err
		}
	}
	ca, err := raftrepl.LoadCA(text[0], text[1])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return ca, nil
}

type pemFile struct {
	name string
	text []byte
	mode fs.FileMode
}

// writeNew makes files that are not there yet, all or none, and returns their paths.
func writeNew(dir string, files ...pemFile) (paths []string, err error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			for _, p := range paths {
				err = errors.Join(err, os.Remove(p))
			}
		}
	}()
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
		if errors.Is(err, fs.ErrExist) {
			return paths, &exitError{exitFailure, fmt.Errorf("%s is there already, and stays: move it away first", path)}
		}
		if err != nil {
			return paths, err
		}
		paths = append(paths, path)
		_, err = to.Write(f.text)
		if err = errors.Join(err, to.Close()); err != nil {
			return paths, err
		}
	}
	return paths, nil
}
