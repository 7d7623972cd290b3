#!/usr/bin/env bash
# Makes the certificates and kubeconfigs of the test cluster in the folder given. They live as long as the cluster.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
mkdir -p "$1/pki"
cd "$1/pki"

key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"

authority() { # FILE NAME
  # shellcheck disable=SC2086 # several words
  openssl req -x509 $key -days 365 -subj "/CN=$2" -keyout "$1.key" -out "$1.crt" 2>openssl.log
}

certificate() { # FILE SUBJECT AUTHORITY [ALTERNATIVE NAMES]
  # shellcheck disable=SC2086
  openssl req $key -subj "$2" -keyout "$1.key" -out "$1.csr" 2>openssl.log
  printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "${4:-DNS:localhost}" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA "$3.crt" -CAkey "$3.key" -CAcreateserial -days 365 -extfile "$1.ext" \
    -out "$1.crt" 2>openssl.log
}

kubeconfig() { # USER
  cat >"../$1.kubeconfig" <<EOF
apiVersion: v1
kind: Config
current-context: sunup
contexts: [{name: sunup, context: {cluster: sunup, user: $1}}]
clusters: [{name: sunup, cluster: {server: "https://127.0.0.1:6443", certificate-authority: $PWD/ca.crt}}]
users: [{name: $1, user: {client-certificate: $PWD/$1.crt, client-key: $PWD/$1.key}}]
EOF
}

names=DNS:localhost,IP:127.0.0.1,IP:$address,IP:10.96.0.1
for each in kubernetes{,.default,.default.svc,.default.svc.cluster.local}; do names=$names,DNS:$each; done

authority ca sunup-cluster
authority front-ca sunup-cluster-front-proxy
certificate apiserver /CN=kube-apiserver ca "$names"
certificate admin /O=system:masters/CN=admin ca
certificate proxy /CN=system:kube-proxy ca
certificate kubelet /O=system:nodes/CN=system:node:node ca "DNS:node,IP:$address"
certificate to-kubelet /O=system:masters/CN=apiserver-kubelet ca
certificate front /CN=front-proxy-client front-ca
openssl genrsa -out accounts.key 2048 2>openssl.log
openssl rsa -in accounts.key -pubout -out accounts.pub 2>openssl.log
for each in admin kubelet proxy; do kubeconfig "$each"; done
