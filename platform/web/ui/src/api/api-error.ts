/** A problem that the API answers with (RFC 9457). `status` is 0 if there was no answer. */
export class ApiError extends Error {
  readonly status: number;
  readonly title: string;

  constructor(status: number, title: string, detail: string) {
    super(detail || title);
    this.name = "ApiError";
    this.status = status;
    this.title = title;
  }
}

/** What an error says to a user. */
export function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
