# What for: run wsgicgi under waitress on Windows, from the start of the machine on, without anybody logged in.
# Start: py -m venv C:\wsgicgi; C:\wsgicgi\Scripts\pip install wsgicgi; powershell -ExecutionPolicy Bypass -File windows.ps1 (as administrator)
# A scheduled task does what a service would do, with what Windows has. It runs as LOCAL SERVICE, an account without
# rights of its own, which must be able to read C:\site. IIS or Caddy in front of it gives it TLS.

[Environment]::SetEnvironmentVariable("WSGICGI_DIRECTORY", "C:\site", "Machine")
# the proxy on this machine; without one leave this out
[Environment]::SetEnvironmentVariable("WSGICGI_TRUSTED_PROXIES", "127.0.0.1", "Machine")

# A running script takes a thread. What X-Forwarded fields mean is decided by wsgicgi, so waitress leaves them alone.
$arguments = "--listen=127.0.0.1:8000 --threads=32 --no-clear-untrusted-proxy-headers --call wsgicgi:create_app"

$action = New-ScheduledTaskAction -Execute "C:\wsgicgi\Scripts\waitress-serve.exe" -Argument $arguments
$trigger = New-ScheduledTaskTrigger -AtStartup
$account = New-ScheduledTaskPrincipal -UserId "NT AUTHORITY\LOCAL SERVICE" -LogonType ServiceAccount
$settings = New-ScheduledTaskSettingsSet -ExecutionTimeLimit 0 -RestartCount 100 -RestartInterval (New-TimeSpan -Minutes 1)
Register-ScheduledTask -TaskName "wsgicgi" -Action $action -Trigger $trigger -Principal $account -Settings $settings -Force
Start-ScheduledTask -TaskName "wsgicgi"
