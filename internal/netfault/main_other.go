//go:build !linux

package main

import "fmt"

func main() {
	fmt.Println("SKIP: this machine cannot do it: it takes network namespaces, which Linux has")
}
